//! Who sent what survives the process.

use super::*;

/// Scenario: a trace with spans of two tenants and of nobody is in the log twice: as its requests came, and written
/// anew; somebody else sends the field that names tenants there. Guarantee: after a restart from either, each
/// span leaves under the tenant that sent it, and nobody's under another's name.
#[tokio::test]
async fn clients_survive_a_restart() {
    let header = |value: &str| Metadata { headers: vec![("x-scope-orgid".to_owned(), value.to_owned())] };
    let keys = ClientKeys::new(vec!["x-scope-orgid".to_owned()]);
    let (red, blue) = (keys.encode(&header("red")), keys.encode(&header("blue")));
    let senders = [&red[..], &blue[..], &[], &red[..]];
    let expected = BTreeMap::from([(None, 2), (Some("blue".to_owned()), 1), (Some("red".to_owned()), 2)]);
    for is_anew in [false, true] {
        let disk = FaultyDisk::new(1);
        let clock = Arc::new(ManualClock::new(EPOCH));
        let options = options(Fsync::None, 0);
        let life = Life::begin(&disk, &options, &clock, RULES).await;
        let send = async |client: &[u8], message: Vec<u8>, items| {
            let mut batch = Batch::from_wire(Signal::Traces, message.into(), items);
            let stored = life.durable.store(&mut batch, client, &*life.clock).await.unwrap();
            life.sampler.insert_from(client, batch.wire(), stored.sequence(), life.clock.now()).unwrap();
        };
        for client in senders {
            send(client, request(vec![error(id_of(1))]).encode_to_vec(), 1).await;
        }
        let forged = [client::field(&red), request(vec![error(id_of(1))]).encode_to_vec()].concat();
        send(&[], forged, 1).await;
        if is_anew {
            let mut written = 0;
            for shard in 0..life.sampler.shards() {
                let found = life.sampler.visit(shard, |shard| shard.write_anew(u64::MAX, 1 << 20, &mut 0));
                for trace in found.unwrap() {
                    let (upto, last_seen) = (life.durable.floor(), trace.last_seen);
                    let spans = record::Spans { upto, id: trace.id, last_seen, message: trace.message.into() };
                    let payload = record::encode_spans(&spans);
                    life.durable.log.append(record::SPANS, trace.spans, EPOCH, payload).await.unwrap();
                    written += trace.spans;
                }
            }
            assert_eq!(written, 5);
        }
        life.crash(&disk, false).await;
        let life = Life::begin(&disk, &options, &clock, RULES).await;
        assert_eq!(life.restored, 5, "anew: {is_anew}");
        clock.advance(Duration::from_secs(60));
        life.decide();
        let mut found: BTreeMap<Option<String>, usize> = BTreeMap::new();
        while let Some(out) = life.take() {
            let mut next = Some(out);
            while let Some(out) = next {
                let batch = out.batch();
                *found.entry(batch.metadata().header("x-scope-orgid").map(str::to_owned)).or_default() += batch.items();
                next = out.accepted();
            }
        }
        assert_eq!(found, expected, "anew: {is_anew}");
    }
}
