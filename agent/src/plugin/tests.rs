//! The plugin as a runtime sees it: environment and standard input in, object and exit code out, with a socket that
//! plays the agent where one is needed. Expectations: the CNI specification's sections 2 and 5.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sinew_api::cni::Added;
use tempfile::TempDir;

use super::*;

const NETNS: &str = "/run/netns/there-is-no-such-namespace";

const OWN_NETNS: &str = "/proc/self/ns/net";

/// A plugin run: its directories are fresh, no agent listens unless the test starts one.
struct Run {
    directory: TempDir,
    env: BTreeMap<&'static str, String>,
    config: Value,
}

impl Run {
    fn new(command: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let env = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c0ffee"),
            ("CNI_NETNS", NETNS),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/usr/lib/cni"),
        ];
        let config = json!({
            "cniVersion": "1.1.0",
            "name": "sinew",
            "type": "sinew-cni",
            "runDir": directory.path(),
            "stateDir": directory.path().join("state"),
        });
        Self { directory, env: env.map(|(key, value)| (key, value.to_owned())).into(), config }
    }

    /// With a namespace that is there, without privileges: the test's own, which a runtime may allow.
    fn in_own_netns(command: &str) -> Self {
        Self::new(command).env("CNI_NETNS", OWN_NETNS).env("CNI_NETNS_OVERRIDE", "1")
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn invocation(&self) -> Result<Invocation, PluginError> {
        Invocation::parse(&|name| self.env.get(name).cloned(), self.config.to_string().as_bytes())
    }

    /// Exit code and printed object.
    fn output(&self) -> (ExitCode, Value) {
        self.output_of(self.config.to_string().as_bytes())
    }

    fn output_of(&self, mut stdin: &[u8]) -> (ExitCode, Value) {
        let mut stdout = Vec::new();
        let code = run(&|name| self.env.get(name).cloned(), &mut stdin, &mut stdout);
        let object = if stdout.is_empty() { Value::Null } else { serde_json::from_slice(&stdout).unwrap() };
        (code, object)
    }

    fn queued(&self) -> Vec<String> {
        let folder = self.directory.path().join("state").join(queue::FOLDER);
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    /// Plays the agent for one request: hands the request back when it was answered with `answer`.
    fn agent(&self, answer: &str) -> JoinHandle<String> {
        let listener = UnixListener::bind(self.directory.path().join("cni.sock")).unwrap();
        let answer = answer.to_owned();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            request
        })
    }
}

/// The error object must have this code and this in its message, and the exit code must say failure.
#[track_caller]
fn check_error(run: &Run, code: u32, part: &str) {
    check_error_of(run.output(), code, part);
}

#[track_caller]
fn check_error_of((exit, object): (ExitCode, Value), code: u32, part: &str) {
    assert_eq!(exit, ExitCode::FAILURE, "{object}");
    assert_eq!(object["code"], code, "{object}");
    assert!(object["msg"].as_str().unwrap().contains(part), "{part:?} is not in {object}");
    assert!(object["cniVersion"].is_string(), "{object}");
}

#[test]
fn version_needs_no_configuration_and_echoes_what_was_asked() {
    let run = Run::new("VERSION");
    let supported = json!(["1.0.0", "1.1.0"]);
    assert_eq!(run.output_of(b"").1, json!({"cniVersion": "1.1.0", "supportedVersions": supported}));
    assert_eq!(
        run.output_of(br#"{"cniVersion": "0.4.0"}"#),
        (ExitCode::SUCCESS, json!({"cniVersion": "0.4.0", "supportedVersions": supported}))
    );
}

#[test]
fn a_bad_environment_is_code_4_and_names_the_variable() {
    for (name, value, part) in [
        ("CNI_COMMAND", "", "CNI_COMMAND is missing"),
        ("CNI_COMMAND", "REPLACE", "CNI_COMMAND: \"REPLACE\""),
        ("CNI_CONTAINERID", "", "CNI_CONTAINERID is missing"),
        ("CNI_CONTAINERID", "../../etc", "CNI_CONTAINERID"),
        ("CNI_CONTAINERID", "_a", "CNI_CONTAINERID"),
        ("CNI_NETNS", "", "CNI_NETNS is missing"),
        ("CNI_IFNAME", "", "CNI_IFNAME is missing"),
        ("CNI_IFNAME", "eth0/../x", "CNI_IFNAME"),
        ("CNI_IFNAME", "sixteen-bytes-xx", "CNI_IFNAME"),
        ("CNI_IFNAME", "..", "CNI_IFNAME"),
        ("CNI_IFNAME", "lo", "CNI_IFNAME"),
        ("CNI_ARGS", "K8S_POD_NAME", "CNI_ARGS"),
        ("CNI_ARGS", "COLOUR=red", "COLOUR is not known"),
        ("CNI_ARGS", "K8S_POD_NAME=a", "K8S_POD_NAMESPACE and K8S_POD_NAME"),
    ] {
        check_error(&Run::new("ADD").env(name, value), 4, part);
    }
    let long = "a".repeat(201);
    check_error(&Run::new("ADD").env("CNI_CONTAINERID", &long), 4, "CNI_CONTAINERID");
}

#[test]
fn a_bad_configuration_is_refused_by_the_field_and_leaves_nothing() {
    for (key, value, code, part) in [
        ("cniVersion", json!("0.4.0"), 1, "0.4.0"),
        ("cniVersion", json!("1.2.0"), 1, "1.2.0"),
        ("cniVersion", json!(1), 7, "cniVersion: a string"),
        ("name", json!(""), 7, "name"),
        ("name", json!("-x"), 7, "name"),
        ("mtu", json!(1400), 2, "mtu: 1400"),
        ("rundir", json!("/x"), 2, "rundir: \"/x\""),
        ("runDir", json!("run/sinew"), 7, "runDir: an absolute path"),
        ("stateDir", json!(3), 7, "stateDir: a string"),
        ("ipMasq", json!(true), 2, "ipMasq: true"),
        ("ipam", json!({"type": "host-local"}), 2, "ipam: {\"type\":\"host-local\"}"),
        ("dns", json!({"server": "10.0.0.1"}), 2, "dns.server: \"10.0.0.1\""),
        ("dns", json!({"search": "a"}), 7, "dns.search: a list"),
        ("capabilities", json!({"bandwidth": 1}), 7, "capabilities"),
        (
            "runtimeConfig",
            json!({"bandwidth": {"ingressRate": 5}}),
            2,
            "runtimeConfig.bandwidth: {\"ingressRate\":5}",
        ),
        ("runtimeConfig", json!({"mac": "00:11:22:33:44:55"}), 2, "runtimeConfig.mac"),
        ("args", json!({"cni": {"ips": ["10.0.0.9"]}}), 2, "args.cni.ips: [\"10.0.0.9\"]"),
        ("args", json!({"cni": {"labels": [{"key": "a"}]}}), 7, "args.cni.labels[0]"),
        ("prevResult", json!({"cniVersion": "1.1.0"}), 7, "first plugin of the list"),
    ] {
        let run = Run::new("ADD").with(key, value);
        check_error(&run, code, part);
        assert_eq!(fs::read_dir(run.directory.path()).unwrap().count(), 0, "{key}");
    }
    check_error_of(Run::new("ADD").output_of(b"{"), 6, "not a JSON object");
    check_error_of(Run::new("ADD").output_of(b"[]"), 6, "not a JSON object");
    check_error_of(Run::new("ADD").output_of(&b" ".repeat(5 << 20)), 6, "longer than");
    check_error_of(Run::new("ADD").output_of(br#"{"name":"a","type":"b"}"#), 1, "cniVersion is missing");
}

#[test]
fn what_a_runtime_adds_by_itself_is_no_error() {
    let run = Run::new("ADD")
        .with("capabilities", json!({"bandwidth": true}))
        .with("runtimeConfig", json!({"bandwidth": {}, "portMappings": []}))
        .with("cni.dev/attachments", json!([]))
        .with("args", json!({"cni": {"labels": [{"key": "app", "value": "a"}]}, "other": {"x": 1}}))
        .env(
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=7",
        );
    let Invocation::Add { attachment, .. } = run.invocation().unwrap() else {
        panic!("an ADD was asked for")
    };
    assert_eq!(
        (attachment.pod_namespace.as_str(), attachment.pod_name.as_str(), attachment.pod_uid.as_str()),
        ("shop", "web-0", "7")
    );
    assert_eq!(attachment.labels, BTreeMap::from([("app".to_owned(), "a".to_owned())]));
}

#[test]
fn a_namespace_that_is_gone_is_an_error_for_add_and_none_for_del() {
    check_error(&Run::new("ADD"), 3, NETNS);
    let run = Run::new("ADD");
    let file = run.directory.path().join("file");
    fs::write(&file, "").unwrap();
    check_error(&run.env("CNI_NETNS", file.to_str().unwrap()), 8, "not a namespace");
    check_error(&Run::new("ADD").env("CNI_NETNS", OWN_NETNS), 8, "node's own");

    let run = Run::new("DEL");
    let agent = run.agent("{\"result\":\"done\"}\n");
    assert_eq!(run.output(), (ExitCode::SUCCESS, Value::Null));
    assert_eq!(
        serde_json::from_str::<Value>(&agent.join().unwrap()).unwrap(),
        json!({"command": "DEL", "container_id": "c0ffee", "ifname": "eth0"})
    );
    assert!(run.queued().is_empty());
}

#[test]
fn an_add_reports_interfaces_addresses_and_routes_in_the_asked_version() {
    let answer = json!({
        "result": "added", "host_ifname": "snw0123456789a", "host_mac": "02:00:00:00:00:01",
        "pod_mac": "02:00:00:00:00:02", "addresses": ["10.240.1.7", "fd00:240:1::7"],
        "gateways": ["169.254.1.1", "fe80::1"], "device_mtu": 1500, "route_mtu": 1430,
    });
    for (version, mtu) in [("1.0.0", Value::Null), ("1.1.0", json!(1430))] {
        let dns = json!({"nameservers": ["10.96.0.10"]});
        let run = Run::in_own_netns("ADD").with("cniVersion", json!(version)).with("dns", dns.clone());
        let agent = run.agent(&format!("{answer}\n"));
        let (exit, result) = run.output();
        assert_eq!(exit, ExitCode::SUCCESS, "{result}");
        agent.join().unwrap();
        let mut routes = json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}]);
        if !mtu.is_null() {
            routes[0]["mtu"] = mtu.clone();
            routes[1]["mtu"] = mtu.clone();
        }
        let mut interfaces = json!([
            {"name": "snw0123456789a", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": OWN_NETNS},
        ]);
        if !mtu.is_null() {
            interfaces[0]["mtu"] = json!(1500);
            interfaces[1]["mtu"] = json!(1500);
        }
        assert_eq!(
            result,
            json!({
                "cniVersion": version,
                "interfaces": interfaces,
                "ips": [
                    {"address": "10.240.1.7/32", "gateway": "169.254.1.1", "interface": 1},
                    {"address": "fd00:240:1::7/128", "gateway": "fe80::1", "interface": 1},
                ],
                "routes": routes,
                "dns": dns,
            })
        );
    }
}

#[test]
fn without_an_agent_add_says_try_later_del_is_queued_and_status_is_50() {
    let start = Instant::now();
    check_error(&Run::in_own_netns("ADD"), 11, "does not answer");
    assert!(start.elapsed() < Duration::from_secs(10), "ADD took {:?}", start.elapsed());
    check_error(&Run::new("STATUS"), 50, "cannot serve an ADD");
    check_error(&Run::new("GC").with("cni.dev/valid-attachments", json!([])), 11, "does not answer");

    let run = Run::new("DEL");
    for _again in 0..2 {
        assert_eq!(run.output(), (ExitCode::SUCCESS, Value::Null));
    }
    let queued = run.queued();
    assert_eq!(queued.len(), 1, "{queued:?}");
    assert_eq!(
        serde_json::from_str::<Value>(&queued[0]).unwrap(),
        json!({"command": "DEL", "container_id": "c0ffee", "ifname": "eth0"})
    );
}

#[test]
fn a_del_whose_agent_dies_before_the_answer_is_queued() {
    let run = Run::new("DEL");
    let agent = run.agent("{\"result\":");
    assert_eq!(run.output(), (ExitCode::SUCCESS, Value::Null));
    agent.join().unwrap();
    assert_eq!(run.queued().len(), 1);
}

#[test]
fn an_agent_that_hangs_costs_less_than_ten_seconds() {
    let run = Run::new("STATUS");
    // It takes the connection (the backlog does) and never answers.
    let _listener = UnixListener::bind(run.directory.path().join("cni.sock")).unwrap();
    let start = Instant::now();
    check_error(&run, 50, "cannot serve an ADD");
    assert!(start.elapsed() < Duration::from_secs(10), "STATUS took {:?}", start.elapsed());
}

#[test]
fn the_agents_refusal_becomes_the_error_object() {
    let run = Run::new("STATUS");
    let agent = run.agent(
        "{\"result\":\"refused\",\"code\":51,\"message\":\"no free address\",\"details\":\"0 of 254\"}\n",
    );
    let (exit, object) = run.output();
    agent.join().unwrap();
    assert_eq!(exit, ExitCode::FAILURE);
    assert_eq!(
        object,
        json!({"cniVersion": "1.1.0", "code": 51, "msg": "no free address", "details": "0 of 254"})
    );
}

#[test]
fn a_del_does_not_need_a_good_configuration_but_a_readable_one() {
    let run =
        Run::new("DEL").with("mtu", json!(1)).with("runtimeConfig", json!({"bandwidth": {"ingressRate": 5}}));
    assert_eq!(run.output().0, ExitCode::SUCCESS);
    check_error_of(Run::new("DEL").output_of(b"nonsense"), 6, "not a JSON object");
    check_error(&Run::new("DEL").with("cniVersion", json!("0.3.1")), 1, "0.3.1");
}

#[test]
fn gc_and_status_came_with_1_1_and_gc_needs_its_list() {
    check_error(&Run::new("GC").with("cniVersion", json!("1.0.0")), 1, "no GC");
    check_error(&Run::new("STATUS").with("cniVersion", json!("1.0.0")), 1, "no STATUS");
    check_error(&Run::new("GC"), 7, "cni.dev/valid-attachments: it is missing");
    let run =
        Run::new("GC").with("cni.dev/valid-attachments", json!([{"containerID": "a", "ifname": "eth0"}]));
    let Invocation::Gc { valid, .. } = run.invocation().unwrap() else { panic!("a GC was asked for") };
    assert_eq!(valid, [("a".to_owned(), "eth0".to_owned())]);
}

#[test]
fn check_wants_the_result_of_this_attachments_add() {
    check_error(&Run::new("CHECK"), 7, "prevResult: it is missing");
    let other = json!({"interfaces": [{"name": "eth0", "sandbox": "/run/netns/another"}]});
    check_error(&Run::new("CHECK").with("prevResult", other), 7, "no interface eth0");
    let own = json!({"interfaces": [{"name": "snwx"}, {"name": "eth0", "sandbox": NETNS}]});
    check_error(&Run::new("CHECK").with("prevResult", own), 3, NETNS);
}

#[test]
fn check_compares_the_result_with_what_the_pod_has() {
    let (own, both) = ("02:00:00:00:00:02", ["10.0.0.5/32", "fd00::5/128"]);
    let added = Added {
        host_ifname: "snwx".to_owned(),
        host_mac: "02:00:00:00:00:01".to_owned(),
        pod_mac: own.to_owned(),
        addresses: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        gateways: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        device_mtu: 1500,
        route_mtu: 1500,
    };
    let result = |mac: &str, ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"address": ip, "interface": 1})).collect();
        json!({"interfaces": [{"name": "snwx"}, {"name": "eth0", "mac": mac, "sandbox": NETNS}], "ips": ips})
    };
    let with_mtu = |mtu: u32| {
        let mut result = result(own, &both);
        result["interfaces"][1]["mtu"] = json!(mtu);
        result
    };
    for (previous, part) in [
        (with_mtu(1500), ""),
        (with_mtu(1300), "prevResult.interfaces[1].mtu: 1300, but the pod's is 1500"),
        (result(own, &both), ""),
        (result("02:00:00:00:00:03", &both), "prevResult.interfaces[1].mac: 02:00:00:00:00:03"),
        (result(own, &["10.0.0.6/32", "fd00::5/128"]), "prevResult.ips[0].address: \"10.0.0.6/32\""),
        (result(own, &both[..1]), "prevResult.ips: the pod's fd00::5 is missing"),
    ] {
        let invocation = Run::new("CHECK").with("prevResult", previous).invocation().unwrap();
        let Invocation::Check { config, attachment } = invocation else { panic!("a CHECK was asked for") };
        match invocation::previous_must_tell(&config, &attachment, &added) {
            Ok(()) => assert_eq!(part, ""),
            Err(error) => {
                assert_eq!(error.code(), Code::INVALID_CONFIG);
                let said = error.to_string();
                assert!(!part.is_empty() && said.contains(part), "{part:?} is not in {said:?}");
            }
        }
    }
}

#[test]
fn labels_that_would_be_read_back_as_others_are_refused() {
    for (key, value, part) in [
        ("app=web,tier", "x", "is no key of a label"),
        ("", "x", "is no key of a label"),
        ("Not_A_Domain/app", "x", "is no key of a label"),
        ("a/b/c", "x", "is no key of a label"),
        ("app", "a=b", "is no value of a label"),
        ("app", "two words", "is no value of a label"),
    ] {
        for labels in [json!([{"key": key, "value": value}]), json!({key: value})] {
            check_error(&Run::new("ADD").with("args", json!({"cni": {"labels": labels}})), 7, part);
        }
    }
    let good = json!({"cni": {"labels": {"example.org/app": "web_1.2-x", "empty": ""}}});
    let Invocation::Add { config, .. } = Run::new("ADD").with("args", good).invocation().unwrap() else {
        panic!("an ADD was asked for")
    };
    assert_eq!(config.labels["example.org/app"], "web_1.2-x");
}

#[test]
fn a_queued_file_is_whole_or_absent_and_no_two_attachments_share_one() {
    let directory = TempDir::new().unwrap();
    queue::put(directory.path(), "a_b", "c").unwrap();
    queue::put(directory.path(), "a", "b_c").unwrap();
    let names = || fs::read_dir(directory.path().join(queue::FOLDER)).unwrap().count();
    assert_eq!(names(), 2);
    queue::remove(directory.path(), "a_b", "c").unwrap();
    queue::remove(directory.path(), "a_b", "c").unwrap();
    assert_eq!(names(), 1);
    let error = queue::put(Path::new("/proc/sys"), "a", "eth0").unwrap_err();
    assert_eq!(error.code(), Code::IO);
}
