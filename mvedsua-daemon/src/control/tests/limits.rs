//! A new version that takes more than it was allowed.

use super::*;

/// Runs an update with a follower until it has a result, which it returns.
fn result(follower: Sleeper, limit: Value) -> Value {
    let mut site = Site::new();
    site.follower = follower;
    let old = site.leader.pid();
    let mut request = update(old, "manual");
    // Nobody else ends it.
    request["update"]["ask"]["wishes"]["min_calls"] = json!(1_000_000);
    for (name, value) in limit.as_object().expect("an object") {
        request["update"]["ask"]["wishes"][name] = value.clone();
    }
    let found = std::sync::Mutex::new(Value::Null);
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        assert!(talk.ask(request).await["ok"].is_object());
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        assert_eq!((&target["stage"], &target["pid"]), (&json!("single-leader"), &json!(old)), "{target}");
        *found.lock().expect("no panic") = target["update"]["result"].clone();
    });
    found.into_inner().expect("no panic")
}

#[test]
fn too_much_memory_ends_the_update() {
    let result = result(Sleeper::start(), json!({"memory_limit": 4096}));
    assert_eq!(result["code"], 11, "{result}");
    assert!(result["text"].as_str().is_some_and(|text| text.contains("its limit is 1 MiB")), "{result}");
}

#[test]
fn too_much_time_for_the_same_requests_ends_the_update() {
    let busy = Sleeper::adopt(Program::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()));
    let result = result(busy, json!({"latency_budget_percent": 300}));
    assert_eq!(result["code"], 11, "{result}");
    assert!(result["text"].as_str().is_some_and(|text| text.contains("its budget is 300 %")), "{result}");
}
