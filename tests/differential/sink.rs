//! Takes remote write 2.0 from a Prometheus: what it has kept of each series beside samples.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use prost::Message;
use serde_json::{Value, json};

use super::prompb::Request2;

/// A receiver on a port of its own.
pub(crate) struct Sink {
    pub(crate) port: u16,
    metadata: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let metadata = Arc::default();
        let seen = Arc::clone(&metadata);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || while take(&stream, &seen).is_some() {});
            }
        });
        Self { port, metadata }
    }

    /// Type, help and unit of each series that has come, by its labels.
    pub(crate) fn metadata(&self) -> BTreeMap<String, Value> {
        self.metadata.lock().expect("no thread panics with it").clone()
    }
}

/// Takes one request; nothing when the connection has ended.
fn take(stream: &TcpStream, seen: &Mutex<BTreeMap<String, Value>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let plain = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
    let request = Request2::decode(plain.as_slice()).expect("remote write 2.0");
    let text = |index: u32| request.symbols[index as usize].clone();
    let (mut samples, mut histograms, mut exemplars) = (0, 0, 0);
    for series in &request.timeseries {
        samples += series.samples.len();
        histograms += series.histograms.len();
        exemplars += series.exemplars.len();
        let labels: BTreeMap<String, String> =
            series.labels_refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
        let metadata = series.metadata.as_ref().map(
            |metadata| json!({"type": metadata.kind, "help": text(metadata.help_ref), "unit": text(metadata.unit_ref)}),
        );
        let mut seen = seen.lock().expect("no thread panics with it");
        seen.insert(json!(labels).to_string(), json!(metadata));
    }
    let mut stream = stream;
    let answer = format!(
        "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {samples}\r\n\
         X-Prometheus-Remote-Write-Histograms-Written: {histograms}\r\n\
         X-Prometheus-Remote-Write-Exemplars-Written: {exemplars}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()
}
