//! `-o` means two things: how every command prints, and to `network create` an option of the network.

use std::ffi::OsString;

/// The words of a command line; after `network create`, `-o KEY=VALUE` becomes `--opt KEY=VALUE`. No format has a `=`.
pub(super) fn with_options(mut words: Vec<OsString>) -> Vec<OsString> {
    let created = words.windows(2).position(|pair| pair[0] == "network" && pair[1] == "create");
    let Some(at) = created else { return words };
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    for at in at + 2..end {
        let (word, next) = (text(&words, at), text(&words, at + 1));
        match word.strip_prefix("-o").map(|rest| rest.strip_prefix('=').unwrap_or(rest)) {
            Some("") if next.contains('=') => words[at] = "--opt".into(),
            Some(pair) if pair.contains('=') => words[at] = format!("--opt={pair}").into(),
            _ => {}
        }
    }
    words
}

fn text(words: &[OsString], at: usize) -> String {
    words.get(at).map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(line: &str) -> String {
        let words = with_options(line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_option_has_a_value_and_a_format_has_none() {
        for (line, expected) in [
            ("meshnet network create -o a=b x", "meshnet network create --opt a=b x"),
            ("meshnet -o json network create x -oa=b", "meshnet -o json network create x --opt=a=b"),
            ("meshnet network create -o=a=b x -o json", "meshnet network create --opt=a=b x -o json"),
        ] {
            assert_eq!(changed(line), expected);
        }
        for same in [
            "meshnet network create x -o json",
            "meshnet network create x -ojson",
            "meshnet network create x -o=json",
            "meshnet network create --label -- -o a=b",
            "meshnet attach x -o a=b",
            "meshnet network create -o",
        ] {
            assert_eq!(changed(same), same);
        }
    }
}
