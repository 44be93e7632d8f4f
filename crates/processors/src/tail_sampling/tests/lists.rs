//! `values_file`: important users from a list.

use nyquist_core::proto::common::v1::any_value::Value;

use super::support::{Id, Rig, attribute, millis, request, span, text};

fn keeps(rig: &Rig, number: u128, user: Value) -> bool {
    let id: Id = number.to_be_bytes();
    let mut one = span(id);
    one.attributes.push(attribute("user.id", user));
    rig.insert(&request(vec![one]), millis(0));
    !rig.finish(millis(0)).is_empty()
}

/// 100,000 users; the watcher itself is tested with the list.
#[test]
fn users_of_a_large_list_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    let users: String = (0..100_000).map(|user| format!("user-{user}\n")).collect();
    std::fs::write(&path, format!("# important users\n4711\n{users}")).unwrap();
    let rig = Rig::new(&format!(
        "
memory_limit_mib: 64
rules:
  - {{name: vip, sampling_percentage: 100, when: {{attribute: {{key: user.id, values_file: {0}}}}}}}
  - {{name: named, sampling_percentage: 100, when: {{span_name: {{values_file: {0}}}}}}}
",
        path.display()
    ));
    assert!(keeps(&rig, 1, text("user-99999")));
    assert!(!keeps(&rig, 2, text("user-100000")));
    assert!(keeps(&rig, 3, Value::IntValue(4711)));
    assert!(!keeps(&rig, 4, Value::IntValue(-4711)));
    assert!(!keeps(&rig, 5, Value::BoolValue(true)));
}

/// Lists and the tables of adaptive rates are part of the budget, and cannot take more than half of it.
#[test]
fn what_rules_take_is_in_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    let write = |count: u64| std::fs::write(&path, (0..count).map(|user| format!("user-{user}\n")).collect::<String>());
    let yaml = |rules: &str| format!("{{memory_limit_mib: 8, num_shards: 1, rules: [{rules}]}}");
    let plain = Rig::new(&yaml("{name: a, sampling_percentage: 5}")).sampler.memory();
    let list = format!(
        "{{name: vip, sampling_percentage: 100, when: {{attribute: {{key: user.id, values_file: {}}}}}}}",
        path.display()
    );

    write(20_000).unwrap();
    let rig = Rig::new(&yaml(&list));
    let lists = rig.sampler.memory() - plain;
    assert!((700_000..2_000_000).contains(&lists), "{lists}");
    let gauge = rig.telemetry.gauge("otelcol_processor_tail_sampling_rules_memory_bytes", "", &[]);
    assert_eq!(gauge.get(), lists as i64);
    // Read again by a thread of its own: the budget follows.
    write(2_000).unwrap();
    let begin = std::time::Instant::now();
    // First the budget, then the gauge.
    while rig.sampler.memory() - plain >= lists / 2 || gauge.get() != (rig.sampler.memory() - plain) as i64 {
        assert!(begin.elapsed().as_secs() < 60, "the list is read again, and told of");
        std::thread::yield_now();
    }

    write(200_000).unwrap();
    let Err(error) = Rig::of(&serde_yaml::from_str(&yaml(&list)).unwrap()) else { panic!("a list of 10 MB") };
    assert!(error.contains("shorten the list"), "{error}");

    let adaptive = "{name: a, adaptive: {goal_percentage: 5, keys: [k], max_keys: 1000}}";
    let tables = Rig::new(&yaml(adaptive)).sampler.memory() - plain;
    assert!((200_000..400_000).contains(&tables), "{tables}");
    let many: Vec<String> = (0..16).map(|rule| adaptive.replace("name: a", &format!("name: a{rule}"))).collect();
    let many: Vec<String> = many
        .iter()
        .enumerate()
        .map(|(rule, yaml)| {
            yaml.replace("adaptive:", &format!("when: {{status: ERROR, span_name: {{values: [n{rule}]}}}}, adaptive:"))
        })
        .collect();
    let Err(error) = Rig::of(&serde_yaml::from_str(&yaml(&many.join(", "))).unwrap()) else { panic!("too many") };
    assert!(error.contains("max_keys"), "{error}");
}
