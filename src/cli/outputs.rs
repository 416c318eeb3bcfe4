//! What a job's sinks have written before: asked for once, before the job runs, and deleted by `--fresh`.
//!
//! A job owns what its sinks write, and the topics of its dead letters and late rows. What it reads is never deleted: no job
//! that reads what it writes gets past planning. How each kind of sink looks and deletes is the port's
//! ([`Output`]); what is said and refused is said here, for all of them.

use std::sync::Arc;

use levada_dataflows::plan::Plan;
use levada_types::{CommandLine, ConnectorError, Deed, Held, Output, SinkFactory};

use crate::telemetry::progress::grouped;

/// Where a job writes.
pub struct Outputs {
    job: String,
    sinks: Vec<Arc<dyn SinkFactory>>,
    /// What the outputs of dead letters and of late rows are called.
    set_aside: Vec<String>,
}

/// An output that holds something.
struct Holding<'a> {
    output: &'a dyn Output,
    held: Held,
}

impl Outputs {
    /// The outputs of a job.
    pub fn of(plan: &Plan) -> Outputs {
        let sinks = plan.sinks.iter().map(|sink| &sink.writer);
        let sinks = sinks.chain(&plan.dead_letters).chain(&plan.late_ledger);
        let aside = plan.dead_letters.iter().chain(&plan.late_ledger);
        let set_aside = aside.filter_map(|sink| Some(sink.outputs().first()?.name())).collect();
        Outputs { job: plan.name.clone(), sinks: sinks.cloned().collect(), set_aside }
    }

    /// First those that can be appended to, and by name.
    fn outputs(&self) -> Vec<&dyn Output> {
        let mut outputs: Vec<_> = self.sinks.iter().flat_map(|sink| sink.outputs()).collect();
        outputs.sort_by_cached_key(|output| (!output.appends(), output.name()));
        outputs
    }

    /// The outputs that hold something.
    fn holding(&self) -> Result<Vec<Holding<'_>>, String> {
        let mut holding = Vec::new();
        for output in self.outputs() {
            match output.held().map_err(failed)? {
                None | Some(Held { records: Some(0), .. }) => {}
                Some(held) => holding.push(Holding { output, held }),
            }
        }
        Ok(holding)
    }

    /// Refuses, with the ways out, when an output holds something already. `append` is a way out only where
    /// something can be appended to.
    ///
    /// # Errors
    /// Then, and when the outputs cannot be looked at.
    pub fn refuse_held(&self, append: bool, several_processes: bool) -> Result<(), String> {
        let holding = self.holding()?;
        let in_the_way: Vec<_> = holding.iter().filter(|held| !(append && held.output.appends())).collect();
        if in_the_way.is_empty() {
            return Ok(());
        }
        let foreign: Vec<String> =
            holding.iter().filter(|held| !held.held.by_job).map(|held| held.output.name()).collect();
        let mut ways = String::new();
        // Of several processes none may delete what another already writes.
        if !several_processes && foreign.is_empty() {
            ways += "\n  --fresh    deletes it, and runs";
        }
        if in_the_way.iter().all(|held| held.output.appends()) {
            ways += "\n  --append   writes behind it, which tells its readers everything a second time";
        }
        ways += &by_hand(in_the_way.iter().map(|held| held.output), Deed::Clear);
        let named = in_the_way.iter().map(|held| counted(held.output.name(), held.held.records));
        let mut named = named.collect::<Vec<_>>().join(", ");
        if !foreign.is_empty() {
            named += &format!("; no job wrote what is in {}", foreign.join(", "));
        }
        Err(format!("failed to run {}: there is output of before: {named}{ways}", self.job))
    }

    /// Why `--fresh` does not go with several processes, and what to do instead.
    pub fn fresh_elsewhere(&self) -> String {
        format!(
            "failed to run {}: --fresh is for one process; of several (--hosts), none may delete what another already \
             writes. Before they start, delete what the job wrote:{}",
            self.job,
            by_hand(self.outputs(), Deed::Delete)
        )
    }

    /// Deletes all of it; says what. Nothing, if the job could not write it again then.
    ///
    /// # Errors
    /// When something cannot be deleted or written.
    pub fn delete(&self) -> Result<Vec<String>, String> {
        for output in self.outputs() {
            output.prepare().map_err(failed)?;
        }
        if let Some(Holding { output, .. }) = self.holding()?.iter().find(|held| !held.held.by_job) {
            let instead = output.by_hand(Deed::Delete);
            let instead = instead.map_or(String::new(), |line| format!("; if it is to go, `{line}`"));
            return Err(format!(
                "failed to run {}: --fresh deletes what jobs wrote, and no job wrote what is in {}{instead}",
                self.job,
                output.full_name()
            ));
        }
        let mut deleted = Vec::new();
        for output in self.outputs() {
            let records = output.held().map_err(failed)?.and_then(|held| held.records);
            if output.delete().map_err(failed)? {
                deleted.push(counted(output.full_name(), records));
            }
        }
        Ok(deleted)
    }

    /// A command that shows what came out.
    pub fn look(&self) -> Option<String> {
        let holding = self.holding().ok()?;
        let shown = holding.iter().map(|held| held.output);
        let shown = shown.filter(|output| !self.set_aside.contains(&output.name()));
        let lines: Vec<CommandLine> = shown.filter_map(|output| output.by_hand(Deed::Look)).collect();
        match lines.as_slice() {
            [] => None,
            [first, others @ ..] => {
                const SHOWN: usize = 3;
                let shown = others.iter().take(SHOWN).map(|line| line.target.as_str());
                let shown = shown.collect::<Vec<_>>().join(", ");
                let also = match others.len() {
                    0 => String::new(),
                    1..=SHOWN => format!("    (or {shown})"),
                    all => format!("    (or {shown} and {} more)", all - SHOWN),
                };
                Some(format!("to look at it: {first}{also}"))
            }
        }
    }
}

/// The command lines that do it, one for all outputs of a kind.
fn by_hand<'a>(outputs: impl IntoIterator<Item = &'a dyn Output>, deed: Deed) -> String {
    let mut lines: Vec<CommandLine> = Vec::new();
    for line in outputs.into_iter().filter_map(|output| output.by_hand(deed)) {
        match lines.iter_mut().find(|l| (&l.command, &l.options) == (&line.command, &line.options)) {
            Some(same) => same.target += &format!(" {}", line.target),
            None => lines.push(line),
        }
    }
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

fn counted(name: String, records: Option<u64>) -> String {
    match records {
        None => name,
        Some(1) => format!("{name} (1 record)"),
        Some(records) => format!("{name} ({} records)", grouped(records)),
    }
}

fn failed(error: ConnectorError) -> String {
    error.to_string()
}
