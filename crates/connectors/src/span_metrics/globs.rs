//! Dimensions that are patterns of attribute names.

use regex::bytes::Regex;

/// The pattern `glob`, in which dots separate: `*` is any text without dots, `**` any text, `?` one character
/// that is no dot, `[a-z]` and `[!a-z]` one character of a class, `{a,b}` one of several; `\` takes the
/// meaning from what follows. The syntax is that of <https://pkg.go.dev/github.com/gobwas/glob>.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn glob_pattern(glob: &str) -> Result<Regex, String> {
    let mut pattern = "^(?s-u:".to_owned();
    let mut letters = glob.chars().peekable();
    let mut alternatives = 0u32;
    while let Some(letter) = letters.next() {
        match letter {
            '*' if letters.peek() == Some(&'*') => {
                while letters.next_if_eq(&'*').is_some() {}
                pattern.push_str(".*");
            }
            '*' => pattern.push_str("[^.]*"),
            '?' => pattern.push_str("(?u:[^.])"),
            '{' => {
                alternatives += 1;
                pattern.push_str("(?:");
            }
            '}' if alternatives > 0 => {
                alternatives -= 1;
                pattern.push(')');
            }
            ',' if alternatives > 0 => pattern.push('|'),
            '[' => class(&mut letters, &mut pattern)?,
            '\\' => push_literal(letters.next().ok_or("it ends in a backslash")?, &mut pattern),
            other => push_literal(other, &mut pattern),
        }
    }
    if alternatives > 0 {
        return Err("a { is not closed".to_owned());
    }
    pattern.push_str(")$");
    Regex::new(&pattern).map_err(|error| error.to_string())
}

fn class(letters: &mut impl Iterator<Item = char>, pattern: &mut String) -> Result<(), String> {
    let inside: String = letters.by_ref().take_while(|letter| *letter != ']').collect();
    let (sign, members) = match inside.strip_prefix('!') {
        Some(members) => ("^", members),
        None => ("", inside.as_str()),
    };
    if members.is_empty() {
        return Err("a [ is not closed, or empty".to_owned());
    }
    pattern.push_str("(?u:[");
    pattern.push_str(sign);
    for member in members.chars() {
        match member {
            '-' => pattern.push('-'),
            other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push_str("])");
    Ok(())
}

fn push_literal(letter: char, pattern: &mut String) {
    pattern.push_str("(?u:");
    pattern.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
    pattern.push(')');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_separate() {
        let cases = [
            ("k8s.*.name", "k8s.cluster.name", true),
            ("k8s.*.name", "k8s.cluster.label.name", false),
            ("db.**.name", "db.a.b.name", true),
            ("db.**", "db.", true),
            ("http.?", "http.a", true),
            ("http.?", "http..", false),
            ("{http,url}.*", "url.path", true),
            ("{http,url}.*", "urls.path", false),
            ("a[bc]d", "abd", true),
            ("a[!bc]d", "abd", false),
            ("a[b-d]d", "add", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a,b", "a,b", true),
            ("größe.*", "größe.x", true),
            ("größ?.x", "größe.x", true),
        ];
        for (glob, name, matches) in cases {
            assert_eq!(glob_pattern(glob).unwrap().is_match(name.as_bytes()), matches, "{glob} {name}");
        }
        for wrong in ["{a", "[", "[]", "a\\"] {
            assert!(glob_pattern(wrong).is_err(), "{wrong}");
        }
    }
}
