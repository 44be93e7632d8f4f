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
