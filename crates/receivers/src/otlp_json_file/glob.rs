//! Patterns of paths: `*`, `?`, `[a-z]`, `{a,b}`, and `**` for any number of folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// How deep `**` looks.
const MAX_DEPTH: usize = 32;

/// A pattern.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    root: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// A name as it is.
    Name(String),
    /// A name that matches.
    Match(Regex),
    /// Any number of folders.
    Folders,
}

impl Glob {
    /// Reads a pattern. An error is for people.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        let root = if pattern.starts_with('/') { "/" } else { "." };
        let names = pattern.split('/').filter(|name| !name.is_empty() && *name != ".");
        let parts: Result<Vec<Part>, String> = names.map(Part::new).collect();
        Ok(Self { root: PathBuf::from(root), parts: parts? })
    }

    /// Adds the files that match now. Folders that cannot be read are passed over.
    pub(super) fn find(&self, found: &mut BTreeSet<PathBuf>) {
        walk(&self.root, &self.parts, 0, found);
    }

    /// Does it match a path that another pattern found?
    pub(super) fn matches(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.root) else { return false };
        let names: Vec<String> = rest.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        matches(&self.parts, &names)
    }
}

fn matches(parts: &[Part], names: &[String]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((Part::Folders, rest)), first) => {
            matches(rest, names) || first.is_some_and(|(_, behind)| matches(parts, behind))
        }
        (Some(_), None) => false,
        (Some((part, rest)), Some((name, behind))) => part.takes(name) && matches(rest, behind),
    }
}

fn walk(folder: &Path, parts: &[Part], depth: usize, found: &mut BTreeSet<PathBuf>) {
    let Some((part, rest)) = parts.split_first() else { return };
    if let Part::Name(name) = part {
        let path = folder.join(name);
        if !rest.is_empty() {
            walk(&path, rest, depth, found);
        } else if path.is_file() {
            found.insert(path);
        }
        return;
    }
    if matches!(part, Part::Folders) {
        walk(folder, rest, depth, found);
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if matches!(part, Part::Folders) {
            // Links to folders are not followed: they may lead back.
            if depth < MAX_DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&path, parts, depth + 1, found);
            }
        } else if part.takes(&entry.file_name().to_string_lossy()) {
            if !rest.is_empty() {
                walk(&path, rest, depth, found);
            } else if path.is_file() {
                found.insert(path);
            }
        }
    }
}

impl Part {
    fn new(name: &str) -> Result<Self, String> {
        if name == "**" {
            return Ok(Self::Folders);
        }
        if !name.contains(['*', '?', '[', '{']) {
            return Ok(Self::Name(name.to_owned()));
        }
        let mut pattern = String::from("^");
        let (mut in_class, mut in_choice) = (false, false);
        for letter in name.chars() {
            match letter {
                ']' if in_class => {
                    in_class = false;
                    pattern.push(']');
                }
                '-' | '^' | '!' if in_class => pattern.push(if letter == '!' { '^' } else { letter }),
                letter if in_class => pattern.push_str(&regex::escape(&letter.to_string())),
                '[' => {
                    in_class = true;
                    pattern.push('[');
                }
                '{' => {
                    in_choice = true;
                    pattern.push_str("(?:");
                }
                '}' if in_choice => {
                    in_choice = false;
                    pattern.push(')');
                }
                ',' if in_choice => pattern.push('|'),
                '*' => pattern.push_str(".*"),
                '?' => pattern.push('.'),
                letter => pattern.push_str(&regex::escape(&letter.to_string())),
            }
        }
        pattern.push('$');
        let regex = Regex::new(&pattern).map_err(|_| format!("{name:?} is no pattern: a bracket is missing"))?;
        Ok(Self::Match(regex))
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Match(regex) => regex.is_match(name),
            Self::Folders => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/var/log/*.json", "/var/log/a.json", true),
            ("/var/log/*.json", "/var/log/a/b.json", false),
            ("/var/**/*.json", "/var/b.json", true),
            ("/var/**/*.json", "/var/a/b/c.json", true),
            ("/a/file-[0-9]?.{json,log}", "/a/file-7x.log", true),
            ("/a/file-[0-9]?.{json,log}", "/a/file-xx.log", false),
            ("/a/[!b].c", "/a/b.c", false),
            ("/a+.(b)*", "/a+.(b)c", true),
            ("a/*", "./a/b", true),
            ("a/*", "/a/b", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(Path::new(path)), expected, "{pattern} {path}");
        }
        assert!(Glob::new("/a/[b").unwrap_err().contains("bracket"));
        assert!(Glob::new("").is_err());
    }

    #[test]
    fn finds_files() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/x.json", "a/b/y.json", "z.json", "z.txt"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let find = |pattern: &str| {
            let mut found = BTreeSet::new();
            Glob::new(&format!("{}/{pattern}", folder.path().display())).unwrap().find(&mut found);
            let relative = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string());
            relative.collect::<Vec<_>>()
        };
        assert_eq!(find("**/*.json"), ["a/b/y.json", "a/x.json", "z.json"]);
        assert_eq!(find("*"), ["z.json", "z.txt"]);
        assert_eq!(find("a/*/*"), ["a/b/y.json"]);
        assert_eq!(find("z.txt"), ["z.txt"]);
        assert!(find("missing/*").is_empty());
    }
}
