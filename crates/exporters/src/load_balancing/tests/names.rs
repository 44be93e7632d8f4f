//! The `dns` resolver in the exporter: a name server that a test has its hands on, and real gRPC servers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::component::{BuildError, Exporter, ExporterConfig, ExporterContext};
use parking_lot::Mutex;

use super::super::LoadBalancingConfig;
use super::super::resolver::Dns;
use super::traces;
use crate::otlp::backend::{Backend, Rig, until};

/// What the name server says.
#[derive(Debug, Clone)]
enum Answer {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    Nothing,
}

/// A balancer that asks that server.
struct Named {
    config: LoadBalancingConfig,
    port: u16,
    answer: Arc<Mutex<Answer>>,
}

impl ExporterConfig for Named {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let answer = Arc::clone(&self.answer);
        let dns = Dns {
            hostname: "samplers.example".to_owned(),
            port: self.port.to_string(),
            interval: Duration::from_millis(10),
            timeout: Duration::from_millis(50),
            lookup: Box::new(move |name: String| {
                assert_eq!(name, "samplers.example");
                let answer = answer.lock().clone();
                Box::pin(async move {
                    match answer {
                        Answer::Addresses(addresses) => Ok(addresses),
                        Answer::NoSuchName => Err(io::Error::other("name or service not known")),
                        Answer::Nothing => std::future::pending().await,
                    }
                })
            }),
        };
        self.config.build_with(context, Arc::new(dns))
    }
}

/// Two backends that differ in nothing but their address.
async fn two_backends() -> ([Backend; 2], u16, [tokio::task::JoinHandle<()>; 2]) {
    let backends = [Backend::default(), Backend::default()];
    let (one, first) = backends[0].serve("127.0.0.1:0", None).await;
    let (_, second) = backends[1].serve(&format!("127.0.0.2:{}", one.port()), None).await;
    (backends, one.port(), [first, second])
}

/// Scenario: the addresses of a name change while the balancer runs; then the name server fails, says nothing, and finds
/// nobody. Guarantee: the balancer asks again and again and follows; without an answer it goes on with those that it
/// knows, and counts that; what is sent meanwhile arrives.
#[tokio::test]
async fn a_name_is_asked_for_again_and_again() {
    let (backends, port, _servers) = two_backends().await;
    let [one, two]: [IpAddr; 2] = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    let yaml = "{resolver: {dns: {hostname: samplers.example}}, protocol: {otlp: {tls: {insecure: true}}}}";
    let answer = Arc::new(Mutex::new(Answer::Addresses(vec![one])));
    let config = serde_yaml::from_str(yaml).unwrap();
    let rig = Rig::start(&Named { config, port, answer: Arc::clone(&answer) }, None).await;
    let used = || rig.metric("otelcol_loadbalancer_num_backends");
    let asked = |success: &str| {
        let name = "otelcol_loadbalancer_num_resolutions";
        rig.metric(&format!("{name}{{exporter=\"otlp\",resolver=\"dns\",success=\"{success}\"}}"))
    };
    let spans = |backend: usize| backends[backend].spans().iter().sum::<usize>();
    assert_eq!(used(), 1.0);
    rig.exporter.consume(traces(0..50, 1)).await.unwrap();
    until("the only one has them", || spans(0) == 50).await;

    *answer.lock() = Answer::Addresses(vec![two, one, two]);
    until("both are used", || used() == 2.0).await;
    rig.exporter.consume(traces(50..100, 1)).await.unwrap();
    until("both have a share", || spans(0) + spans(1) == 100 && spans(1) > 0).await;

    let mut sent = 100;
    for silence in [Answer::NoSuchName, Answer::Nothing, Answer::Addresses(Vec::new())] {
        let before = asked("false");
        *answer.lock() = silence.clone();
        until("it was asked in vain", || asked("false") >= before + 3.0).await;
        assert_eq!(used(), 2.0, "{silence:?}");
        rig.exporter.consume(traces(sent..sent + 50, 1)).await.unwrap();
        sent += 50;
        until("what is sent meanwhile arrives", || spans(0) + spans(1) == sent as usize).await;
    }

    let (before, first) = (asked("true"), spans(0));
    *answer.lock() = Answer::Addresses(vec![two]);
    until("the one that is left", || used() == 1.0).await;
    assert!(asked("true") > before);
    rig.exporter.consume(traces(sent..sent + 50, 1)).await.unwrap();
    until("has everything", || spans(0) + spans(1) == sent as usize + 50).await;
    assert_eq!(spans(0), first);
}
