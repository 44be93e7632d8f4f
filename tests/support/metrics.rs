//! Reads the Prometheus text format, and the ledger in it.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// A scrape.
#[derive(Debug, Clone)]
pub(crate) struct Samples(pub(crate) Vec<Sample>);

impl Samples {
    /// Parses a page of the text format.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(parse_line).collect())
    }

    /// The samples of `name` with at least `labels`.
    pub(crate) fn all<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        })
    }

    /// Their sum; zero if there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether any metric's name starts with `prefix`.
    pub(crate) fn has_family(&self, prefix: &str) -> bool {
        self.0.iter().any(|sample| sample.name.starts_with(prefix))
    }

    /// The accounts of the ledger: (account, signal).
    pub(crate) fn accounts(&self) -> BTreeSet<(String, String)> {
        let of_ledger = self.all("nyquist_ledger_items", &[]);
        of_ledger.map(|sample| (sample.labels["account"].clone(), sample.labels["signal"].clone())).collect()
    }

    /// One account of the ledger.
    pub(crate) fn account(&self, account: &str, signal: &str) -> Account {
        let labels = [("account", account), ("signal", signal)];
        let entry = |name: &str| {
            let labels = [("account", account), ("signal", signal), ("entry", name)];
            self.sum("nyquist_ledger_items", &labels)
        };
        Account {
            name: format!("{account} ({signal})"),
            accepted: entry("accepted"),
            created: entry("created"),
            filtered: entry("filtered"),
            sampled_out: entry("sampled_out"),
            merged: entry("merged"),
            emitted: entry("emitted"),
            exported: entry("exported"),
            dropped: self.sum("nyquist_ledger_dropped_items", &labels),
            held: self.sum("nyquist_ledger_held_items", &labels),
        }
    }

    /// Every account that anything was booked on.
    pub(crate) fn ledger(&self) -> Vec<Account> {
        let accounts = self.accounts();
        let all = accounts.iter().map(|(account, signal)| self.account(account, signal));
        all.filter(|account| account.accepted + account.created > 0.0).collect()
    }
}

/// One account: items by what became of them.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) accepted: f64,
    pub(crate) created: f64,
    pub(crate) filtered: f64,
    pub(crate) sampled_out: f64,
    pub(crate) merged: f64,
    pub(crate) emitted: f64,
    pub(crate) exported: f64,
    pub(crate) dropped: f64,
    pub(crate) held: f64,
}

impl Account {
    /// What came in minus what is accounted for; zero when the account balances.
    pub(crate) fn difference(&self) -> f64 {
        let gone = self.filtered + self.sampled_out + self.merged + self.emitted + self.exported + self.dropped;
        self.accepted + self.created - gone - self.held
    }
}

fn parse_line(line: &str) -> Sample {
    let (series, rest) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_at(line.find(' ').unwrap_or_else(|| panic!("no value in {line:?}"))),
    };
    let value = rest.split_whitespace().next().unwrap_or_else(|| panic!("no value in {line:?}"));
    let value = value.parse().unwrap_or_else(|error| panic!("{error} in {line:?}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    Sample { name: name.to_owned(), labels: parse_labels(labels.trim_end_matches('}')), value }
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((key, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => break,
                },
                plain => value.push(plain),
            }
        }
        labels.insert(key.trim_matches([',', ' ']).to_owned(), value);
        text = &rest[end..];
    }
    labels
}

#[test]
fn a_scrape_is_read_with_its_escapes() {
    let samples = Samples::parse("# HELP a b\na 1\nb{x=\"1\",y=\"q\\\"}\\n\"} 2.5 170\nc{} +Inf\n");
    assert_eq!(samples.sum("a", &[]), 1.0);
    assert_eq!(samples.sum("b", &[("y", "q\"}\n")]), 2.5);
    assert!(samples.sum("c", &[]).is_infinite());
}
