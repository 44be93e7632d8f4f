use std::collections::HashMap;
use std::time::Duration;

use nyquist_core::component::Identity;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn bounds(requests: Option<f64>, bytes: Option<f64>, items: Option<f64>, held: Option<usize>) -> Bounds {
    Bounds { rates: [requests, bytes, items], burst: SECOND * 2, held, clients: 3 }
}

/// Guarantee: a client gets its burst at once and its rate from then on, and is told how long to wait.
#[tokio::test(start_paused = true)]
async fn a_rate_is_a_burst_and_then_the_rate() {
    let table = Table::new(bounds(Some(5.0), None, None, None));
    let start = Instant::now();
    let admitted = |now| (0..100).take_while(|_| table.enter(1, 0, now).is_ok()).count();
    assert_eq!(admitted(start), 10, "two seconds at five");
    let Err(Full::Rate(Rate::Requests, wait)) = table.enter(1, 0, start) else { panic!("overdrawn") };
    assert!(wait <= SECOND / 5, "{wait:?}");
    assert_eq!(admitted(start + SECOND), 5);
    assert_eq!(admitted(start + SECOND * 60), 10, "no more than the burst is saved up");
    assert!(table.enter(2, 0, start).is_ok(), "another client has its own");
}

/// Guarantee: bytes and items are charged for what a request was; an overdraft has to be worked off.
#[tokio::test(start_paused = true)]
async fn an_overdraft_is_worked_off() {
    let table = Table::new(bounds(None, Some(100.0), Some(10.0), None));
    let now = Instant::now();
    let key = table.enter(1, 0, now).unwrap();
    table.charge(key, 1_200, 5);
    let Err(full) = table.enter(1, 0, now) else { panic!("overdrawn") };
    assert_eq!(full, Full::Rate(Rate::Bytes, SECOND * 10));
    assert!(table.enter(1, 0, now + SECOND * 11).is_ok());
    let key = table.enter(2, 0, now).unwrap();
    table.charge(key, 0, 40);
    assert_eq!(table.enter(2, 0, now), Err(Full::Rate(Rate::Items, SECOND * 2)));
}

/// Guarantee: bytes in flight stay under the bound, except for one request that is alone.
#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded_and_given_back() {
    let table = Table::new(bounds(None, None, None, Some(100)));
    let now = Instant::now();
    let key = table.enter(1, 60, now).unwrap();
    assert_eq!(table.enter(1, 41, now), Err(Full::Held));
    assert!(table.grow(key, 40) && !table.grow(key, 1));
    table.leave(key, 100);
    assert!(table.enter(1, 1_000, now).is_ok(), "alone");
}

/// Guarantee: however many clients come, only so many are remembered; those that are busy stay themselves,
/// those that are quiet make room, the others share.
#[tokio::test(start_paused = true)]
async fn clients_are_bounded() {
    let table = Table::new(bounds(Some(1.0), None, None, Some(10)));
    let now = Instant::now();
    let busy = table.enter(1, 5, now).unwrap();
    assert!((2..1_000).filter(|key| table.enter(*key, 0, now).is_ok()).count() <= 5);
    assert!(table.len() <= 4, "three and the others");
    let later = now + SECOND * 10;
    let [second, third] = [5_000, 6_000].map(|key| table.enter(key, 5, later).unwrap());
    assert_eq!((second, third), (5_000, 6_000), "the quiet ones are forgotten");
    assert!(!table.grow(busy, 6), "the busy one is not");
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u64, usize),
    Leave(usize),
    Charge(usize, usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u64, 0..50_usize).prop_map(|(key, bytes)| Step::Enter(key, bytes)),
        2 => (0..20_usize).prop_map(Step::Leave),
        2 => (0..20_usize, 0..30_usize).prop_map(|(index, items)| Step::Charge(index, items)),
        1 => (0..3_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Guarantee: for any client that is told apart, whatever happens: requests admitted in all never exceed
    /// burst + rate x time; bytes in flight never exceed the bound unless one is alone; and after all
    /// have left and time has passed, everybody is as new.
    #[test]
    fn no_order_of_events_breaks_the_bounds(steps in prop::collection::vec(step(), 1..200)) {
        let table = Table::new(bounds(Some(3.0), None, Some(10.0), Some(100)));
        let start = Instant::now();
        let mut now = start;
        let mut open: Vec<(Key, usize)> = Vec::new();
        let mut admitted = HashMap::<Key, usize>::new();
        for step in steps {
            match step {
                Step::Enter(key, bytes) => {
                    if let Ok(key) = table.enter(key, bytes, now) {
                        open.push((key, bytes));
                        *admitted.entry(key).or_default() += 1;
                        let held: usize = open.iter().filter(|(other, _)| *other == key).map(|(_, bytes)| bytes).sum();
                        let positive = open.iter().filter(|(other, bytes)| *other == key && *bytes > 0).count();
                        prop_assert!(held <= 100 || positive == 1);
                        let most = 6.0 + 3.0 * (now - start).as_secs_f64() + 1e-6;
                        prop_assert!(admitted[&key] as f64 <= most);
                    }
                }
                Step::Leave(index) if index < open.len() => {
                    let (key, bytes) = open.swap_remove(index);
                    table.leave(key, bytes);
                }
                Step::Charge(index, items) if index < open.len() => table.charge(open[index].0, 0, items),
                Step::Leave(_) | Step::Charge(..) => {}
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            prop_assert!(table.len() <= 4);
        }
        open.into_iter().for_each(|(key, bytes)| table.leave(key, bytes));
        now += SECOND * 100_000;
        for key in 100..103 {
            prop_assert_eq!(table.enter(key, 100, now), Ok(key));
        }
    }
}

fn limits(per: &str) -> (Arc<Limits>, Arc<Telemetry>) {
    let telemetry = Telemetry::new();
    let limit = ClientLimit {
        per: per.to_owned(),
        requests_per_second: Some(1.0),
        burst: nyquist_core::config::Duration::from_secs(1),
        ..ClientLimit::default()
    };
    (Limits::new("otlp", &Admission::new(1 << 20), None, &[limit], &telemetry), telemetry)
}

impl Limits {
    /// Both steps.
    fn let_in(&self, client: &Client, headers: &HeaderMap) -> Result<Pass, Rejection> {
        self.enter(self.make_room(client.address, headers)?, client, headers)
    }
}

fn client(address: &str, subject: &str) -> Client {
    let attributes = vec![("subject".to_owned(), subject.to_owned())];
    Client { address: Some(address.parse().unwrap()), identity: Identity { attributes } }
}

/// Guarantee: clients are told apart by what `per` names and nothing else; an IPv6 network is one client.
#[tokio::test(start_paused = true)]
async fn what_makes_a_client() {
    let headers = |tenant: &str| HeaderMap::from_iter([("x-tenant".parse().unwrap(), tenant.parse().unwrap())]);
    let same = |per: &str, one: (Client, HeaderMap), two: (Client, HeaderMap)| {
        let (limits, _) = limits(per);
        limits.let_in(&one.0, &one.1).is_ok_and(|_| limits.let_in(&two.0, &two.1).is_err())
    };
    let (a, b) = (|| client("10.0.0.1", "ann"), || client("10.0.0.2", "bob"));
    assert!(same("client.address", (a(), headers("1")), (a(), headers("2"))));
    assert!(!same("client.address", (a(), headers("1")), (b(), headers("1"))));
    assert!(same("metadata.X-Tenant", (a(), headers("1")), (b(), headers("1"))));
    assert!(!same("metadata.X-Tenant", (a(), headers("1")), (a(), headers("2"))));
    assert!(same("metadata.X-Tenant", (a(), HeaderMap::new()), (b(), HeaderMap::new())), "all without it");
    assert!(same("auth.subject", (a(), headers("1")), (client("10.9.9.9", "ann"), headers("2"))));
    assert!(!same("auth.subject", (a(), headers("1")), (b(), headers("1"))));
    let (near, far) = ("2001:db8:1:2:a::1", "2001:db8:1:3:a::1");
    let v6 = |address| (client(address, ""), HeaderMap::new());
    assert!(same("client.address", v6("2001:db8:1:2::7"), v6(near)));
    assert!(!same("client.address", v6("2001:db8:1:2::7"), v6(far)));
    assert!(same("client.address", v6("::ffff:10.0.0.1"), v6("10.0.0.1")));
}

/// Guarantee: a refusal is typed, says when to come back, and is counted; what it held is given back.
#[tokio::test(start_paused = true)]
async fn refusals_are_typed_and_counted() {
    let (limits, telemetry) = limits("client.address");
    let (ann, none) = (client("10.0.0.1", ""), HeaderMap::new());
    drop(limits.let_in(&ann, &none).unwrap());
    let Err(rejection) = limits.let_in(&ann, &none) else { panic!("over the rate") };
    assert_eq!((rejection.code, rejection.retry), (Code::ResourceExhausted, Some(MIN_RETRY)));
    let message = "more than requests_per_second of client_limits allows per client.address: slow down and try again";
    assert_eq!(rejection.message, message);
    assert_eq!(limits.admission.used(), 0);
    let labels = [("receiver", "otlp"), ("per", "client.address"), ("limit", "requests_per_second")];
    assert_eq!(telemetry.sum("nyquist_receiver_limited_requests", &labels), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(limits.let_in(&ann, &none).is_ok());
}

/// Scenario: two entries, of which the second refuses. Guarantee: what it refuses costs nothing at the first, and holds
/// nothing there; what both let in costs at both.
#[tokio::test(start_paused = true)]
async fn what_one_entry_refuses_is_not_charged_to_another() {
    let limit = |per: &str, burst| ClientLimit {
        per: per.to_owned(),
        requests_per_second: Some(1.0),
        burst: nyquist_core::config::Duration::from_secs(burst),
        max_in_flight: Some(nyquist_core::config::ByteSize(1 << 20)),
        ..ClientLimit::default()
    };
    let entries = [limit("client.address", 3), limit("metadata.x-tenant", 1)];
    let limits = Limits::new("otlp", &Admission::new(1 << 20), None, &entries, &Telemetry::new());
    let of = |tenant: &str| HeaderMap::from_iter([("x-tenant".parse().unwrap(), tenant.parse().unwrap())]);
    let ann = client("10.0.0.1", "");
    drop(limits.let_in(&ann, &of("noisy")).unwrap());
    for _ in 0..100 {
        let Err(rejection) = limits.let_in(&ann, &of("noisy")) else { panic!("the tenant is over its rate") };
        assert!(rejection.message.contains("metadata.x-tenant"), "{}", rejection.message);
    }
    assert_eq!(limits.admission.used(), 0);
    for tenant in ["a", "b"] {
        assert!(limits.let_in(&ann, &of(tenant)).is_ok(), "the address has two of its three left");
    }
    let Err(rejection) = limits.let_in(&ann, &of("c")) else { panic!("the address is over its rate") };
    assert!(rejection.message.contains("client.address"), "{}", rejection.message);
}
