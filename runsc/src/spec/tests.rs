//! Configurations as engines write them, and wrong ones.

use serde_json::{Value, json};

use super::*;

mod fields;

struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let path = std::env::temp_dir().join(format!("runsc-spec-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("rootfs")).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn plan_of(name: &str, config: &Value) -> Result<Plan> {
    let temp = Temp::new(name);
    std::fs::write(temp.0.join("config.json"), config.to_string()).unwrap();
    plan(&load(&temp.0)?, Options { overlay: Overlay::Memory })
}

pub fn base() -> Value {
    starter::starter(&["true".into()], "/", None)
}

fn error_of(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut config = base();
    change(&mut config);
    format!("{:#}", plan_of(name, &config).unwrap_err())
}

#[test]
fn the_starter_is_valid() {
    let plan = plan_of("starter", &base()).unwrap();
    assert_eq!(plan.container.process.args[0].as_bytes(), b"true");
    assert_eq!(plan.container.mounts.len(), 7);
    assert_eq!(plan.sources.len(), 1);
    assert!(plan.container.root.readonly);
    assert_eq!(plan.container.process.rlimits[0].resource, 7);
    plan_of("starter-rootless", &starter::starter(&[], "/", Some((1000, 1000)))).unwrap();
}

#[test]
fn wrong_values_are_named() {
    let cases: Vec<(&str, Box<dyn FnOnce(&mut Value)>)> = vec![
        ("linux.namespaces[0].type", Box::new(|c| c["linux"]["namespaces"][0]["type"] = json!("pdi"))),
        ("process.apparmorProfile", Box::new(|c| c["process"]["apparmorProfile"] = json!("x"))),
        ("process.selinuxLabel", Box::new(|c| c["process"]["selinuxLabel"] = json!("x"))),
        ("process.args", Box::new(|c| c["process"]["args"] = json!([]))),
        ("process.cwd", Box::new(|c| c["process"]["cwd"] = json!("tmp"))),
        ("process.env[0]", Box::new(|c| c["process"]["env"][0] = json!("PATH"))),
        ("process.user.uid", Box::new(|c| c["process"]["user"]["uid"] = json!("root"))),
        ("process.rlimits[0].type", Box::new(|c| c["process"]["rlimits"][0]["type"] = json!("RLIMIT_X"))),
        (
            "process.capabilities.bounding[1]",
            Box::new(|c| c["process"]["capabilities"]["bounding"][1] = json!("CAP_X")),
        ),
        ("mounts[1].options", Box::new(|c| c["mounts"][1]["options"][0] = json!("nosiud"))),
        ("mounts[0].type", Box::new(|c| c["mounts"][0]["type"] = json!("ext4"))),
        (
            "mounts[0].source",
            Box::new(|c| c["mounts"][0] = json!({"destination": "/a", "type": "bind", "source": "/no/such"})),
        ),
        ("root.path", Box::new(|c| c["root"]["path"] = json!("nowhere"))),
        ("ociVersion", Box::new(|c| c["ociVersion"] = json!("2.0.0"))),
        (
            "linux.seccomp.defaultAction",
            Box::new(|c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NO"})),
        ),
        (
            "linux.seccomp.syscalls[0].args[0].index",
            Box::new(|c| {
                c["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]
                })
            }),
        ),
        ("linux.rootfsPropagation", Box::new(|c| c["linux"]["rootfsPropagation"] = json!("shared"))),
        (
            "linux.namespaces[1].path",
            Box::new(|c| c["linux"]["namespaces"][1]["path"] = json!("/no/such/ns")),
        ),
        (
            "linux.uidMappings",
            Box::new(|c| c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}])),
        ),
        ("linux.maskedPaths[0]", Box::new(|c| c["linux"]["maskedPaths"][0] = json!("proc"))),
    ];
    for (index, (field, change)) in cases.into_iter().enumerate() {
        let error = error_of(&format!("wrong{index}"), change);
        assert!(error.contains(field), "{field}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn malformed_json_and_missing_files() {
    let temp = Temp::new("malformed");
    let error = format!("{:#}", load(&temp.0).unwrap_err());
    assert!(error.contains("config.json") && error.contains("no such file"), "{error}");
    std::fs::write(temp.0.join("config.json"), "{\"ociVersion\": ").unwrap();
    let error = format!("{:#}", load(&temp.0).unwrap_err());
    assert!(error.contains("config.json") && error.contains("line 1"), "{error}");
    assert!(load(Path::new("/no/such/bundle")).is_err());
}

#[test]
fn binds_become_sources_and_devices() {
    let mut config = base();
    config["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/data", "type": "bind", "source": "/tmp", "options": ["rbind", "ro"]}),
        json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind"]}),
        json!({"destination": "/dev/x", "type": "bind", "source": "/dev/null", "options": ["bind"]}),
    ]);
    let plan = plan_of("binds", &config).unwrap();
    assert_eq!(plan.sources.len(), 3);
    assert!(plan.sources[1].readonly && plan.sources[1].recursive && plan.sources[1].directory);
    assert!(!plan.sources[2].readonly && !plan.sources[2].directory);
    assert_eq!((plan.container.devices[0].major, plan.container.devices[0].minor), (1, 3));
    assert_eq!(plan.container.mounts.len(), 9);
}
