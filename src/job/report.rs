//! Everything that is wrong with a job file, in the order of the file, for people.
//!
//! A [`Diagnostic`] says what is wrong, where (a byte range of [`Texts`]), and what to do about it. A
//! [`Report`] renders all of them, coloured for a terminal, plain ASCII otherwise.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use levada_types::nearest;

use super::document::Texts;
use super::world;

/// How many known names a report lists at most: as many as fit two lines.
const MAX_KNOWN: usize = 16;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What, without a full stop.
    pub message: String,
    /// Where.
    pub span: Option<Range<usize>>,
    /// What stands there.
    pub label: Option<String>,
    /// Another place that has to do with it, and why.
    pub also: Option<(Range<usize>, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Something wrong, as yet without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Diagnostic { message: message.into(), span: None, label: None, also: None, help: None }
    }

    /// At this place.
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }

    /// What stands there.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Another place that has to do with it.
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }

    /// What to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Offers the nearest of the known names, or lists them when none is near.
    pub fn offer<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(wrong, &known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None if known.is_empty() => self,
            None => {
                let shown: Vec<String> =
                    known.iter().take(MAX_KNOWN).map(|name| format!("`{name}`")).collect();
                let more = if known.len() > MAX_KNOWN { ", ..." } else { "" };
                let are = if known.len() == 1 { "is" } else { "are" };
                self.help(format!("there {are} {}{more}", shown.join(", ")))
            }
        }
    }
}

/// All that is wrong with a job file.
#[derive(Clone, Debug)]
pub struct Report {
    texts: Arc<Texts>,
    found: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(texts: Arc<Texts>, mut found: Vec<Diagnostic>) -> Self {
        found.sort_by_key(|d| (d.span.as_ref().map_or(0, |span| span.start), d.message.clone()));
        found.dedup();
        Report { texts, found }
    }

    pub(super) fn unreadable(name: &str, error: &std::io::Error) -> Self {
        let mut found = Diagnostic::error(format!("failed to read {name}: {error}"));
        if error.kind() == std::io::ErrorKind::IsADirectory {
            let is_job = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
            found.help = world::meant(&Path::new(name).join("job.toml"), is_job);
        }
        if error.kind() == std::io::ErrorKind::NotFound {
            let is_job = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
            found.help = world::meant(Path::new(name), is_job);
        }
        Report { texts: Arc::new(Texts::new(name, "", &[])), found: vec![found] }
    }

    /// A file that is given as a job and holds JSON.
    pub(super) fn of_data(name: &str) -> Self {
        let found =
            Diagnostic::error(format!("{name} is no job file: it holds JSON, and a job file is TOML"));
        let found =
            found.help("a job names the files that it reads, as `path = \"...\"` of a `[source.NAME.file]`");
        Report { texts: Arc::new(Texts::new(name, "", &[])), found: vec![found] }
    }

    /// What is wrong, in the order of the file.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.found
    }

    /// Each problem with its place, reason and remedy, and how many there are. `styled` for a terminal.
    pub fn render(&self, styled: bool) -> String {
        let count = match self.found.len() {
            1 => "1 problem".to_string(),
            n => format!("{n} problems"),
        };
        let summary = Level::ERROR.primary_title(format!("{count} in {}", self.texts.name()));
        let summary = renderer(styled).render(&[Group::with_title(summary)]);
        format!("{}{summary}\n", self.render_as(Level::ERROR, styled))
    }

    /// Each of them as a warning, and no count.
    pub fn render_warnings(&self, styled: bool) -> String {
        self.render_as(Level::WARNING, styled)
    }

    fn render_as(&self, level: Level<'static>, styled: bool) -> String {
        let renderer = renderer(styled);
        let one = |diagnostic| renderer.render(&[self.group(diagnostic, level.clone())]) + "\n\n";
        self.found.iter().map(one).collect()
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic, level: Level<'a>) -> Group<'a> {
        let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
        if let Some(span) = &diagnostic.span {
            let (segment, place) = self.texts.place(span);
            let mark = AnnotationKind::Primary.span(place).label(diagnostic.label.as_deref());
            let mut snippet =
                Snippet::source(segment.text.as_str()).path(segment.name.as_str()).annotation(mark);
            if let Some((other, label)) = &diagnostic.also {
                let (same, place) = self.texts.place(other);
                if same.name == segment.name {
                    snippet = snippet.annotation(AnnotationKind::Context.span(place).label(label.as_str()));
                }
            }
            group = group.element(snippet);
        }
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

fn renderer(styled: bool) -> Renderer {
    if styled { Renderer::styled().decor_style(DecorStyle::Unicode) } else { Renderer::plain() }
}

/// Plain ASCII.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}
