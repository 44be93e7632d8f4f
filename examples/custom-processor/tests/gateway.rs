//! The gateway with the extra processor, as a user runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const GATEWAY: &str = env!("CARGO_BIN_EXE_custom-processor");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.yaml");
const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
"spanId":"eee19b7ec3c1b174","name":"POST /pay","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn lines_of(source: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

/// Waits for a line with `text`; what was printed until then is in the panic.
fn wait_for(lines: &mpsc::Receiver<String>, text: &str) {
    let mut seen = Vec::new();
    while let Ok(line) = lines.recv_timeout(Duration::from_secs(20)) {
        if line.contains(text) {
            return;
        }
        seen.push(line);
    }
    panic!("no line with {text:?} in:\n{}", seen.join("\n"));
}

/// Scenario: a span through the gateway. Guarantee: it leaves with the team on its resource.
#[test]
fn tags_every_resource() {
    let http = free_endpoint();
    let mut command = Command::new(GATEWAY);
    command.args(["--config", CONFIG]).env("TEAM", "checkout-crew");
    command.env("HTTP_ENDPOINT", &http).env("GRPC_ENDPOINT", "127.0.0.1:0");
    let mut gateway = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let (sender, lines) = mpsc::channel();
    lines_of(gateway.0.stdout.take().unwrap(), sender.clone());
    lines_of(gateway.0.stderr.take().unwrap(), sender);
    wait_for(&lines, "everything is ready");

    let mut stream = TcpStream::connect(&http).unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        SPAN.len()
    );
    stream.write_all((head + SPAN).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    wait_for(&lines, "checkout-crew");
}

/// Scenario: the section is wrong. Guarantee: `validate` says where, and what.
#[test]
fn its_section_is_validated() {
    let validate = |arguments: &[&str]| {
        Command::new(GATEWAY).args(["validate", "--config", CONFIG]).args(arguments).output().unwrap()
    };
    assert!(validate(&[]).status.success());
    let broken = validate(&["--set", "processors.tag_team.teem=x", "--set", "processors.tag_team.team="]);
    assert!(!broken.status.success());
    let message = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(message.contains("teem") && message.contains("did you mean") && message.contains("whose spans"), "{message}");
}
