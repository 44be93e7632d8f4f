//! Tables and quantities for people.

/// A table with a line of headings. Columns are as wide as they have to be.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    pub(super) fn render(&self) -> String {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let width_of = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| width(cell)).max();
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| width_of(column).unwrap_or(0)).collect();
        let mut out = String::new();
        for line in lines() {
            let mut text = String::new();
            for ((cell, (_, align)), wide) in line.iter().zip(&self.columns).zip(&widths) {
                let pad = " ".repeat(wide - width(cell));
                match align {
                    Align::Left => text.extend([cell, pad.as_str(), "  "]),
                    Align::Right => text.extend([pad.as_str(), cell, "  "]),
                }
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Foreign text without what could steer a terminal, and not too long for a cell.
pub(super) fn printable(text: &str) -> String {
    const MOST: usize = 200;
    let shown: String = text
        .chars()
        .take(MOST)
        .map(|letter| if letter.is_control() || is_invisible(letter) { '\u{fffd}' } else { letter })
        .collect();
    if text.chars().nth(MOST).is_some() { format!("{shown}...") } else { shown }
}

/// Marks that change the direction or the place of text around them.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `part` of `whole` in percent: `12.5 %`.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 { percent(0.0) } else { percent(part as f64 / whole as f64 * 100.0) }
}

/// `12.5 %`.
pub(super) fn percent(percentage: f64) -> String {
    format!("{} %", decimal(percentage, 2))
}

/// A number with at most so many digits behind the point, and no zeros at the end.
pub(super) fn decimal(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `1.5 KiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", decimal(value, 1), UNITS.get(unit).copied().unwrap_or_default())
}

/// `250 ms`, `1.25 s`.
pub(super) fn millis(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        let digits = if milliseconds < 10.0 { 3 } else { 1 };
        format!("{} ms", decimal(milliseconds, digits))
    } else {
        seconds(milliseconds / 1000.0)
    }
}

/// `1.25 s`, `12 min`, `3.5 h`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        short if short < 120.0 => format!("{} s", decimal(short, 2)),
        middle if middle < 7200.0 => format!("{} min", decimal(middle / 60.0, 1)),
        long => format!("{} h", decimal(long / 3600.0, 1)),
    }
}

/// `1 span`, `2 spans`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(
            [0, 1023, 1024, 1536, 5 << 20, 1 << 62].map(bytes)[..5],
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "5 MiB"]
        );
        assert_eq!([0.25, 250.0, 1250.0, 600_000.0].map(millis), ["0.25 ms", "250 ms", "1.25 s", "10 min"]);
        assert_eq!((share(1, 3), share(1, 0), count(1, "span")), ("33.33 %".into(), "0 %".into(), "1 span".into()));
    }

    /// Names of spans come from anywhere; a terminal shows them and obeys none of them.
    #[test]
    fn cells_do_not_steer_the_terminal() {
        let mut table = Table::new(&[("name", Align::Left), ("spans", Align::Right)]);
        table.row(["\u{1b}[31mred\n\u{202e}".to_owned(), "7".to_owned()]);
        table.row(["x".repeat(500), "12".to_owned()]);
        let text = table.render();
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains(['\u{1b}', '\u{202e}']));
        assert!(text.lines().all(|line| line.chars().count() <= 212), "{text}");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&[("name", Align::Left), ("spans", Align::Right)]);
        table.row(["é".to_owned(), "7".to_owned()]);
        table.row(["longer".to_owned(), "12".to_owned()]);
        assert_eq!(table.render(), "name    spans\né           7\nlonger     12\n");
    }
}
