//! What an event says: a sentence of its category, which may name a cause.
//!
//! ```text
//!  sentence   "{p99} of {service} {rose} to {ms} ms"             by category
//!  + where    "while calling {cause}"                            the service that it comes from, or a dependency
//!  + what     "log says: {theme}" ─► "packet loss on {code}"      what is wrong there, of twelve themes
//! ```
//!
//! A word in braces is one of its synonyms ([`SYNONYMS`]), a number, or a name. The same sentences are made for noise
//! and for incidents; what differs is only that in an incident cause, theme and code are the same for many events.

use std::fmt::Write as _;

use super::Category;
use crate::generate::random::Random;

/// What may be wrong with a service.
pub(super) struct Theme {
    /// What the first event of an incident of it is.
    pub category: Category,
    /// Ways to say it.
    phrases: &'static [&'static str],
    /// What a code looks like; `#` is a digit.
    code: &'static [&'static str],
}

pub(super) const THEMES: [Theme; 12] = [
    Theme {
        category: Category::Deploy,
        phrases: &["the new release {code}", "build {code}", "the rollout of {code}", "version {code}"],
        code: &["#.##.#", "#.#.##"],
    },
    Theme {
        category: Category::Saturation,
        phrases: &[
            "no space left on {code}",
            "a full disk ({code})",
            "volume {code} at 100%",
            "{code} out of space",
        ],
        code: &["/dev/sdb#", "/dev/sdc#", "/dev/nvme#n#", "/var/lib/vol##"],
    },
    Theme {
        category: Category::Network,
        phrases: &[
            "packet loss on {code}",
            "a flapping link ({code})",
            "retransmits on {code}",
            "{code} drops packets",
        ],
        code: &["eth#.###", "bond#.##", "vlan###"],
    },
    Theme {
        category: Category::Saturation,
        phrases: &[
            "a memory leak in {code}",
            "the heap of {code} exhausted",
            "long garbage collections in {code}",
        ],
        code: &["worker-##", "session-store-##", "batch-##"],
    },
    Theme {
        category: Category::Database,
        phrases: &[
            "lock contention on {code}",
            "deadlocks on {code}",
            "blocked transactions on {code}",
            "{code} locked",
        ],
        code: &["orders_##", "entries_##", "customers_##", "events_##"],
    },
    Theme {
        category: Category::Security,
        phrases: &[
            "the expired certificate {code}",
            "certificate {code} not valid",
            "refused handshakes for {code}",
        ],
        code: &["CN-####", "leaf-####"],
    },
    Theme {
        category: Category::Security,
        phrases: &[
            "denied credentials of {code}",
            "the rotated secret {code}",
            "permission denied for {code}",
        ],
        code: &["svc-###", "role-###"],
    },
    Theme {
        category: Category::Database,
        phrases: &["pool {code} exhausted", "no free connections in {code}", "too many clients of {code}"],
        code: &["pool-##", "rw-pool-##", "ro-pool-##"],
    },
    Theme {
        category: Category::Database,
        phrases: &["slow query {code}", "a missing index for {code}", "full scans by {code}"],
        code: &["q####", "stmt-####"],
    },
    Theme {
        category: Category::Deploy,
        phrases: &["the changed setting {code}", "a wrong value of {code}", "configuration {code}"],
        code: &["retry-budget-##", "timeout-ms-##", "flag-####"],
    },
    Theme {
        category: Category::UserReport,
        phrases: &["a surge of requests to {code}", "a traffic spike on {code}", "{code} overrun by clients"],
        code: &["/api/v#/items##", "/api/v#/batch##", "/v#/feed##"],
    },
    Theme {
        category: Category::Error,
        phrases: &["error {code}", "exception {code}", "failures with code {code}"],
        code: &["E####", "ERR-####"],
    },
];

/// By category, in the order of [`Category::ALL`].
const SENTENCES: [&[&str]; 8] = [
    &[
        "{service} {deployed} to {host}",
        "rollout of {service} {finished} on {n} of {m} hosts",
        "canary of {service} {rolled_back} after {min} min",
        "configuration of {service} reloaded on {host}",
    ],
    &[
        "{p99} of {service} {rose} to {ms} ms",
        "requests to {service} {slow}, {ms} ms at the {p99}",
        "{service} answers {slowly}: {ms} ms over {min} min",
        "{pct}% of requests to {service} take longer than {ms} ms",
    ],
    &[
        "{service} {fails}: {pct}% of requests in {min} min",
        "{errors} from {service} on {host}, {n} in a minute",
        "error rate of {service} {rose} to {pct}%",
        "{n} {errors} in {service}",
        "health check of {service} {fails} on {host}",
    ],
    &[
        "{cpu} of {host} at {pct}%, {service} {slow}",
        "queue of {service} holds {n} requests",
        "{service} uses {pct}% of its memory on {host}",
        "{threads} of {service} are {busy}",
    ],
    &[
        "{queries} of {service} {slow}, {ms} ms on average",
        "replica of {service} is {n} s behind",
        "{service} waits for {n} transactions",
        "{queries} of {service} {fail}",
    ],
    &[
        "{connections} from {service} on {host} {fail}",
        "{n} connections of {service} reset in {min} min",
        "round trips from {host} {rose} to {ms} ms",
        "{service} cannot be reached from {n} hosts",
    ],
    &[
        "{n} requests to {service} refused as unauthorised",
        "{service} rejects tokens of {n} clients",
        "audit of {service}: {n} unusual accesses from {host}",
        "handshakes with {service} {fail} on {host}",
    ],
    &[
        "{users} report that {service} is {slow_adjective}",
        "{n} tickets about {service} in {min} min",
        "{users} cannot use {service}",
        "support asks about {service}: {users} see {errors}",
    ],
];

const WHERE: &[&str] = &[
    "while calling {cause}",
    "calls to {cause} {fail}",
    "waiting for {cause}",
    "{cause} behind it {fails}",
    "upstream is {cause}",
];

const WHAT: &[&str] = &[
    "{perhaps} {theme}",
    "after {theme}",
    "log says: {theme}",
    "{theme} seen on {host}",
    "trace shows {theme}",
];

const SYNONYMS: &[(&str, &[&str])] = &[
    ("p99", &["p99", "p95", "99th percentile", "tail latency"]),
    ("rose", &["rose", "went up", "climbed", "jumped"]),
    ("slow", &["are slow", "lag", "take long", "stall"]),
    ("slow_adjective", &["slow", "sluggish", "not loading", "hanging"]),
    ("slowly", &["slowly", "late", "with delay"]),
    ("fail", &["fail", "time out", "are refused", "break off"]),
    ("fails", &["fails", "errors out", "times out", "does not answer"]),
    ("errors", &["errors", "exceptions", "5xx responses", "failures"]),
    ("deployed", &["deployed", "rolled out", "restarted", "released"]),
    ("finished", &["finished", "done", "complete"]),
    ("rolled_back", &["rolled back", "reverted", "stopped"]),
    ("cpu", &["CPU", "load", "processor time"]),
    ("threads", &["threads", "workers", "executors"]),
    ("busy", &["busy", "all taken", "saturated"]),
    ("queries", &["queries", "statements", "reads", "writes"]),
    ("connections", &["connections", "sockets", "sessions"]),
    ("users", &["users", "customers", "some people", "clients"]),
    ("perhaps", &["perhaps", "probably", "likely", "suspected:"]),
];

/// What the words in braces stand for.
pub(super) struct Names<'a> {
    pub service: &'a str,
    pub host: u64,
    /// The service that is named as where it comes from.
    pub cause: Option<&'a str>,
    /// What is named as wrong.
    pub theme: Option<(&'static Theme, &'a str)>,
}

impl Theme {
    /// Whether this word is a code as one of this theme has it.
    #[cfg(test)]
    pub(super) fn has(&self, word: &str) -> bool {
        let fits = |(shape, c): (char, char)| if shape == '#' { c.is_ascii_digit() } else { shape == c };
        self.code.iter().any(|shape| shape.len() == word.len() && shape.chars().zip(word.chars()).all(fits))
    }

    /// A code as one of this theme has it.
    pub(super) fn new_code(&self, random: &mut Random) -> String {
        let shape = random.pick(self.code);
        let digit = |c: char| match c {
            '#' => char::from(b'0' + random.below(10) as u8),
            other => other,
        };
        shape.chars().map(digit).collect()
    }
}

/// A sentence of this category.
pub(super) fn sentence(category: Category, names: &Names<'_>, random: &mut Random) -> String {
    let mut text = String::with_capacity(120);
    expand(random.pick(SENTENCES[category as usize]), names, random, &mut text);
    let mut tails = [names.cause.map(|_| WHERE), names.theme.map(|_| WHAT)];
    if random.below(3) == 0 {
        tails.swap(0, 1);
    }
    for tail in tails.into_iter().flatten() {
        text.push_str(", ");
        expand(random.pick(tail), names, random, &mut text);
    }
    text
}

fn expand(template: &str, names: &Names<'_>, random: &mut Random, text: &mut String) {
    for part in template.split('}') {
        let (plain, word) = part.split_once('{').unwrap_or((part, ""));
        text.push_str(plain);
        match word {
            "" => {}
            "service" => text.push_str(names.service),
            "host" => number(text, "h-", names.host),
            "cause" => text.push_str(names.cause.unwrap_or_default()),
            "theme" => {
                if let Some((theme, _)) = names.theme {
                    expand(random.pick(theme.phrases), names, random, text);
                }
            }
            "code" => text.push_str(names.theme.map_or("", |(_, code)| code)),
            "n" => number(text, "", 2 + random.below(20) * random.below(20)),
            "m" => number(text, "", 400 + random.below(100)),
            "ms" => number(text, "", 200 + 10 * random.below(60) * random.below(20)),
            "pct" => number(text, "", 3 + random.below(97)),
            "min" => number(text, "", 1 + random.below(15)),
            _ => {
                let of = SYNONYMS.iter().find(|(name, _)| *name == word).map(|(_, of)| *of);
                text.push_str(of.map_or("", |of| random.pick(of)));
            }
        }
    }
}

fn number(text: &mut String, before: &str, number: u64) {
    // Memory takes it.
    let _ = write!(text, "{before}{number}");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_word_in_braces_is_known() {
        let plain = ["service", "host", "cause", "theme", "code", "n", "m", "ms", "pct", "min"];
        let phrases = THEMES.iter().flat_map(|theme| theme.phrases);
        let templates = SENTENCES.iter().copied().flatten().chain(WHERE).chain(WHAT).chain(phrases);
        let mut used = HashSet::new();
        for template in templates {
            for part in template.split('}').filter(|part| part.contains('{')) {
                let (_, word) = part.split_once('{').unwrap();
                assert!(
                    plain.contains(&word) || SYNONYMS.iter().any(|(name, _)| *name == word),
                    "{template}"
                );
                used.insert(word);
            }
        }
        assert_eq!(used.len(), plain.len() + SYNONYMS.len(), "none is there for nothing");
    }

    #[test]
    fn a_sentence_names_what_it_is_given_and_varies() {
        let mut random = Random::new(1);
        let mut sentences = HashSet::new();
        for theme in &THEMES {
            for category in Category::ALL {
                let code = theme.new_code(&mut random);
                let names = Names {
                    service: "checkout-7",
                    host: 12,
                    cause: Some("ledger-db-2"),
                    theme: Some((theme, &code)),
                };
                let text = sentence(category, &names, &mut random);
                assert!(text.contains("ledger-db-2") && text.contains(&code), "{text}");
                assert!(!text.contains(['{', '}', '#']), "{text}");
                let bare = sentence(category, &Names { cause: None, theme: None, ..names }, &mut random);
                assert!(!bare.contains("ledger-db-2") && !bare.contains(&code), "{bare}");
                sentences.insert(text);
            }
        }
        assert_eq!(sentences.len(), 12 * 8);
    }
}
