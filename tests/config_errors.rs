//! A broken file and the exact message it must give: `tests/config/broken/*.yaml`, each with a `.txt`.
//!
//! `NYQUIST_BLESS=1 cargo test --test config_errors` writes the messages as they are now; read the
//! difference before committing it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

fn nyquist(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nyquist"));
    command.current_dir(directory).args(arguments).env_remove("NYQUIST_TEST_UNSET").env_remove("DD_API_KEY");
    command.output().unwrap()
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every broken file: exit code 1, nothing on standard output, exactly this on standard error.
#[test]
fn broken_files_say_what_is_wrong() {
    let directory = here("tests/config/broken");
    let files = yaml_files(&directory);
    assert!(files.len() >= 25);
    let mut differences = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let output = nyquist(&directory, &["validate", "--config", name]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(output.stdout.is_empty(), "{name}");
        let expected = file.with_extension("txt");
        if env::var_os("NYQUIST_BLESS").is_some() {
            fs::write(&expected, &text).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        if text != wanted {
            differences.push(format!("{name} should say:\n{wanted}\nbut says:\n{text}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The repository's own configuration is valid, without a word.
#[test]
fn the_default_configuration_is_valid() {
    let output = nyquist(&here(""), &["validate"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.as_str()), (Some(0), ""));
}

/// `print-config` redacts headers and what is read as a secret, and its output loads again.
#[test]
fn print_config_redacts_and_loads_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = "
receivers: {otlp: {protocols: {grpc: }}}
exporters: {otlp: {endpoint: 'a:4317', headers: {x-scope: hunter2}, tls: {ca_pem: swordfish, insecure: true}}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}
";
    fs::write(directory.path().join("in.yaml"), config).unwrap();
    let redacted = nyquist(directory.path(), &["print-config", "--config", "in.yaml"]);
    let text = String::from_utf8(redacted.stdout).unwrap();
    assert_eq!(redacted.status.code(), Some(0), "{}", String::from_utf8_lossy(&redacted.stderr));
    assert!(text.contains("[REDACTED]") && !text.contains("hunter2") && !text.contains("swordfish"), "{text}");

    let whole = nyquist(directory.path(), &["print-config", "--mode", "unredacted", "--config", "in.yaml"]);
    fs::write(directory.path().join("out.yaml"), &whole.stdout).unwrap();
    let again = nyquist(directory.path(), &["print-config", "--mode=unredacted", "--config=out.yaml"]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(again.stdout, whole.stdout);
}

/// Public Collector configurations, where they are at hand: no panic, and every error has a place.
#[test]
fn public_configurations_are_understood() {
    let candidates = [here("../shared/data/configs"), here("../../shared/data/configs")];
    let Some(directory) = candidates.iter().find(|directory| directory.is_dir()) else { return };
    let mut valid = 0;
    let files = yaml_files(directory);
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let output = nyquist(directory, &["validate", "--config", name]);
        let text = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => valid += 1,
            Some(1) => {
                let lines: Vec<&str> = text.lines().collect();
                let errors = lines.windows(2).filter(|pair| pair[0].starts_with("error: "));
                for error in errors {
                    assert!(error[1].contains(&format!("--> {name}:")), "{name}: no place: {error:?}");
                }
            }
            code => panic!("{name}: exit code {code:?}: {text}"),
        }
    }
    println!("{valid} of {} public configurations are valid as they are", files.len());
}
