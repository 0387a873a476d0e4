//! `tuflog doctor REPOSITORY`: silent on good repositories, and on others that differ by one fault each it names the
//! fault and the clients that it hurts. python-tuf, tuf-js and tough are run on every one of them, and must do as it says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha384, Sha512};
use tough::{FilesystemTransport, RepositoryLoader, TargetName};
use tuflog::bins::sha256;
use tuflog::clock::{Clock, SystemClock, format_utc};
use tuflog::doctor::repository::report::{Finding, Level, Report, Verdict};
use tuflog::doctor::repository::{self, Client, Clients, Subject};
use tuflog::error::Kind;
use tuflog::tuf::{Signer, canonical};

use crate::clients::{self, Files};
use crate::help;
use crate::repositories::{CONTENT, Form, LEAF, Plan};
use crate::schemas::Checker;
use crate::server::{self, Server, said};

/// A repository, the one finding that it must have, and the clients that this hurts; all others are as before.
struct Case {
    plan: Plan,
    finding: &'static str,
    level: Level,
    hurt: Clients,
    /// What follows from it.
    also: &'static [&'static str],
}

const PY: Clients = Clients::of(&[Client::PythonTuf]);
const JS: Clients = Clients::of(&[Client::TufJs]);
const TOUGH: Clients = Clients::of(&[Client::Tough]);
const GO: Clients = Clients::GO;
const RUST: Clients = Clients::of(&[Client::RustTuf]);
const PHP: Clients = Clients::of(&[Client::PhpTuf]);
const JAVA: Clients = Clients::of(&[Client::SigstoreJava]);
const AKTUALIZR: Clients = Clients::of(&[Client::Aktualizr]);

/// A fault that hurts clients, in a repository of a form.
fn fault(form: Form, finding: &'static str, hurt: Clients, plan: impl FnOnce(Plan) -> Plan) -> Case {
    let plan = plan(Plan::new(finding, form));
    Case { plan, finding, level: Level::Error, hurt, also: &[] }
}

/// The same, of which there are several.
fn another(name: &str, mut case: Case) -> Case {
    case.plan.name = format!("{}-{name}", case.plan.name);
    case
}

/// Something that hurts nobody, yet.
fn warning(form: Form, finding: &'static str, plan: impl FnOnce(Plan) -> Plan) -> Case {
    Case { level: Level::Warning, ..fault(form, finding, Clients::NONE, plan) }
}

/// Something that concerns only clients that are not judged.
fn note(form: Form, finding: &'static str, who: Clients, plan: impl FnOnce(Plan) -> Plan) -> Case {
    Case { level: Level::Note, ..fault(form, finding, who, plan) }
}

fn set(at: &'static str, value: Value) -> impl Fn(&mut Value) {
    move |json| *json.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value.clone()
}

/// Sets a member that is not there yet.
fn put(at: &'static str, key: &'static str, value: Value) -> impl Fn(&mut Value) {
    move |json| json.pointer_mut(at).unwrap_or_else(|| panic!("{at}"))[key] = value.clone()
}

fn remove(at: &'static str, key: &'static str) -> impl Fn(&mut Value) {
    move |json| {
        json.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    }
}

/// Changes the entry of the only target.
fn entry(change: impl Fn(&mut Value) + 'static) -> impl Fn(&mut Value) {
    move |json| json["targets"].as_object_mut().unwrap().values_mut().for_each(&change)
}

fn custom(value: Value) -> impl Fn(&mut Value) {
    entry(move |entry| entry["custom"] = value.clone())
}

fn overwrite(name: &'static str, change: impl Fn(Vec<u8>) -> Vec<u8> + 'static) -> impl Fn(&Path) {
    move |dir| {
        let path = dir.join(name);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    }
}

fn unused_key(keytype: &'static str, scheme: &'static str, public: &'static str) -> impl Fn(&mut Value) {
    move |root| {
        let key = json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}});
        let id = hex::encode(sha256(&canonical::to_vec(&key).unwrap()));
        root["keys"][id] = key;
    }
}

/// Delegates to more roles before the one that lists the target; they list nothing, and each delegation is changed.
fn more_roles(plan: Plan, more: usize, change: impl Fn(&mut Value) + 'static) -> Plan {
    let names = move || (0..more).map(|i| format!("more-{i}"));
    plan.edit("targets", move |json| {
        let roles = json["delegations"]["roles"].as_array_mut().unwrap();
        let leaf = roles.remove(0);
        for name in names() {
            let mut role = leaf.clone();
            role["name"] = name.into();
            change(&mut role);
            roles.push(role);
        }
        roles.push(leaf);
    })
    .edit("snapshot", move |json| names().for_each(|name| json["meta"][format!("{name}.json")] = json!({"version": 1})))
    .after(move |dir| names().for_each(|name| leaf_like(dir, &name, |_| ())))
}

/// Publishes a role that is like the one that lists the target, but lists nothing and is changed.
fn leaf_like(dir: &Path, name: &str, change: impl Fn(&mut Value)) {
    let mut role: Value = serde_json::from_slice(&fs::read(dir.join("1.team.json")).unwrap()).unwrap();
    role["signed"]["targets"] = json!({});
    change(&mut role["signed"]);
    let signature = Signer::from_seed(&[1; 32]).sign(&canonical::to_vec(&role["signed"]).unwrap());
    role["signatures"][0]["sig"] = hex::encode(signature).into();
    fs::write(dir.join(format!("1.{name}.json")), role.to_string()).unwrap();
}

/// Two roles, for `other-*` and `team-*`, delegate to the one that lists the target; the second as `change` has it.
fn two_parents(plan: Plan, change: impl Fn(&mut Value) + Clone + 'static) -> Plan {
    const PARENTS: [(&str, &str); 2] = [("one", "other-*"), ("two", "team-*")];
    let delegations = std::rc::Rc::new(std::cell::RefCell::new(Value::Null));
    let kept = delegations.clone();
    plan.edit("targets", move |json| {
        kept.replace(json["delegations"].clone());
        let roles = json["delegations"]["roles"].as_array_mut().unwrap();
        let leaf = roles.remove(0);
        for (name, paths) in PARENTS {
            let mut role = leaf.clone();
            (role["name"], role["paths"]) = (name.into(), json!([paths]));
            roles.push(role);
        }
    })
    .edit("snapshot", |json| {
        PARENTS.iter().for_each(|(name, _)| json["meta"][format!("{name}.json")] = json!({"version": 1}))
    })
    .after(move |dir| {
        for (name, paths) in PARENTS {
            leaf_like(dir, name, |role| {
                role["delegations"] = delegations.borrow().clone();
                role["delegations"]["roles"][0]["paths"] = json!([paths]);
                if name == "two" {
                    change(&mut role["delegations"]);
                }
            });
        }
    })
}

/// Gives the role that lists the target another name, and its file each of these.
fn renamed(plan: Plan, name: &'static str, files: &'static [&str]) -> Plan {
    plan.edit("targets", set("/delegations/roles/0/name", json!(name)))
        .edit("snapshot", move |json| {
            let meta = json["meta"].as_object_mut().unwrap();
            let entry = meta.remove("team.json").unwrap();
            meta.insert(format!("{name}.json"), entry);
        })
        .after(move |dir| {
            for file in files {
                let file = dir.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::copy(dir.join("1.team.json"), file).unwrap();
            }
            fs::remove_file(dir.join("1.team.json")).unwrap();
        })
}

/// A key with nothing in it, and its id.
fn no_key() -> (String, Value) {
    let key = json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": "no key"}});
    (hex::encode(sha256(&canonical::to_vec(&key).unwrap())), key)
}

const RSA: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyR2y5IkcpOA38hxEWUWU\nwLc1HPia8g+BwNoyLrALmpja4L4sLFe9+7VO78r1s3VaD7u1fz44zFlRBJhdMEQ8\nm+luWiYZ7MNEwZpShuiE12/GRq5dToHPK4+Dqv7JB8uZEDKfigp3G630nnR36x7P\nNjtDDm4oxVs6o4cw0JVg+sxoV0erfhHYVdNooVZv+kWcrWLn/GxOxBlZOwsRTRti\nZVRIAjL/fhKbDYCiWl5sbRtU2grz1xcjuktCMiOCeoz7ChCzxqQ1Xx7drZADbgI9\ndNUNZolMb9ZP2CBwZuwH3ypgYasoRuXeLzAR9sJnSVWOyLuXNZK4DNcrMXbfIH0E\nTQIDAQAB\n-----END PUBLIC KEY-----\n";
const P384: &str = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEqofKIr6LBTeOscce8yCtdG4dO2KLp5uY\nWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3NhfeSpYmLG9dnpi/kpLcKfj0Hb0omhR8\n6doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f\n-----END PUBLIC KEY-----\n";

fn faults() -> Vec<Case> {
    use Form::*;
    let all = Clients::ALL;
    let wide = PY | JS | GO | TOUGH;
    vec![
        // Dates, versions, specification.
        fault(Flat, "expired", all, |p| p.edit("timestamp", set("/expires", json!("2020-01-01T00:00:00Z")))),
        another("bin", fault(Hashes, "expired", all, |p| p.edit(LEAF, set("/expires", json!("2020-01-01T00:00:00Z"))))),
        fault(Flat, "expires-form", PY | GO, |p| {
            p.edit("timestamp", set("/expires", json!("2096-01-01T00:00:00.500Z")))
        }),
        another(
            "digits",
            fault(Flat, "expires-form", PY | GO | TOUGH, |p| {
                p.edit("timestamp", set("/expires", json!("2096-01-01T00:00:00.5Z")))
            }),
        ),
        another(
            "offset",
            fault(Flat, "expires-form", PY | GO | TOUGH, |p| {
                p.edit("snapshot", set("/expires", json!("2096-01-01T00:00:00+00:00")))
            }),
        ),
        fault(Flat, "expires-year-9999", TOUGH, |p| p.edit(LEAF, set("/expires", json!("9999-12-31T23:59:59Z")))),
        fault(Flat, "spec-version", PY | JS, |p| p.edit("timestamp", set("/spec_version", json!("2.0.0")))),
        another(
            "short",
            fault(Flat, "spec-version", PY | JS, |p| p.edit("timestamp", set("/spec_version", json!("1")))),
        ),
        fault(Flat, "shape", all, |p| p.edit("timestamp", remove("", "version"))),
        another("kind", fault(Flat, "shape", all, |p| p.edit("snapshot", set("/_type", json!("targets"))))),
        // Roots and keys.
        fault(Flat, "consistent-snapshot-missing", JS | GO | TOUGH, |p| {
            p.edit("root", remove("", "consistent_snapshot")).after(|dir| {
                for role in ["snapshot", "targets"] {
                    fs::copy(dir.join(format!("1.{role}.json")), dir.join(format!("{role}.json"))).unwrap();
                }
            })
        }),
        fault(Flat, "key-id", TOUGH, |p| p.key_id("aa")),
        fault(Flat, "key-type", PY | TOUGH, |p| p.edit("root", unused_key("mystery", "mystery", "00"))),
        another(
            "p384",
            fault(Flat, "key-type", TOUGH, |p| p.edit("root", unused_key("ecdsa", "ecdsa-sha2-nistp384", P384))),
        ),
        fault(Flat, "role-key-repeated", PY | JS, |p| {
            p.edit("root", |root| {
                let ids = root["roles"]["snapshot"]["keyids"].as_array_mut().unwrap();
                ids.push(ids[0].clone());
            })
        }),
        fault(Flat, "role-key-missing", GO, |p| {
            p.edit("root", |root| {
                root["roles"]["snapshot"]["keyids"].as_array_mut().unwrap().push(json!("ab".repeat(32)))
            })
        }),
        fault(Flat, "threshold", wide, |p| p.edit("root", set("/roles/root/threshold", json!(0)))),
        fault(Flat, "signature", all, |p| {
            p.raw("snapshot", |file| file.replace(r#""sig":"0"#, r#""sig":"1"#).replace(r#""sig":""#, r#""sig":"00"#))
        }),
        fault(Flat, "repeated-signature", wide, |p| {
            p.raw("timestamp", |file| {
                let mut json: Value = serde_json::from_str(&file).unwrap();
                let first = json["signatures"][0].clone();
                json["signatures"].as_array_mut().unwrap().push(first);
                json.to_string()
            })
        }),
        // What names files, and what they are.
        fault(Flat, "file-missing", all, |p| p.after(|dir| fs::remove_file(dir.join("1.snapshot.json")).unwrap())),
        another(
            "bin",
            fault(Succinct, "file-missing", all, |p| {
                let bin = sha256(p.target.as_bytes())[0] >> 6;
                p.after(move |dir| fs::remove_file(dir.join(format!("1.bins-{bin}.json"))).unwrap())
            }),
        ),
        fault(Succinct, "role-not-in-snapshot", all, |p| {
            let bin = sha256(p.target.as_bytes())[0] >> 6;
            p.edit("snapshot", move |json| {
                json["meta"].as_object_mut().unwrap().remove(&format!("bins-{bin}.json")).unwrap();
            })
        }),
        fault(Flat, "version-differs", all, |p| {
            p.edit("timestamp", |json| {
                let meta = &mut json["meta"]["snapshot.json"];
                *meta = json!({"version": 2});
            })
            .after(|dir| {
                fs::copy(dir.join("1.snapshot.json"), dir.join("2.snapshot.json")).unwrap();
            })
        }),
        fault(Flat, "length-differs", all, |p| {
            p.edit("timestamp", |json| {
                json["meta"]["snapshot.json"] = json!({"version": 1, "length": 100});
            })
        }),
        another(
            "shorter",
            fault(Flat, "length-differs", PY | JS | GO, |p| {
                p.edit("timestamp", |json| {
                    json["meta"]["snapshot.json"] = json!({"version": 1, "length": 100_000});
                })
            }),
        ),
        fault(Flat, "hash-differs", all, |p| {
            p.after(overwrite("1.snapshot.json", |file| {
                let text = String::from_utf8(file).unwrap();
                let (head, signed) = text.split_once("],").unwrap();
                let at = head.find(r#""sig":""#).unwrap() + 7;
                format!("{}{}],{signed}", &head[..at], head[at..].to_uppercase()).into_bytes()
            }))
        }),
        fault(Flat, "timestamp-meta", PY | JS | TOUGH, |p| {
            p.edit("timestamp", put("/meta", "more.json", json!({"version": 1})))
        }),
        fault(Flat, "snapshot-without-targets", all, |p| {
            p.edit("snapshot", |json| json["meta"] = json!({"other.json": {"version": 1}}))
        }),
        fault(Hashes, "meta-entry", all, |p| p.edit("snapshot", put("/meta", "other.json", json!({"version": 0})))),
        fault(Hashes, "meta-length-zero", GO, |p| {
            p.edit("snapshot", put("/meta", "other.json", json!({"version": 1, "length": 0})))
        }),
        fault(Flat, "hash-name", GO | TOUGH, |p| {
            p.edit(LEAF, entry(|entry| entry["hashes"] = json!({"sha384": hex::encode(Sha384::digest(CONTENT))})))
        }),
        // Sizes.
        fault(Flat, "size", PY | JS | GO, |p| p.edit("timestamp", put("", "x-pad", json!("x".repeat(17_000))))),
        another(
            "snapshot",
            fault(Flat, "size", PY | JS | GO | TOUGH, |p| {
                p.edit("snapshot", put("", "x-pad", json!("x".repeat(2_100_000)))).edit("timestamp", |json| {
                    json["meta"]["snapshot.json"] = json!({"version": 1});
                })
            }),
        ),
        // The forms of delegation.
        fault(Hashes, "form-twofold", all, |p| {
            p.edit("targets", |json| {
                let ids = json["delegations"]["roles"][0]["keyids"].clone();
                json["delegations"]["succinct_roles"] =
                    json!({"bit_length": 2, "keyids": ids, "name_prefix": "bins", "threshold": 1});
            })
        }),
        another(
            "role",
            fault(Hashes, "form-twofold", all, |p| {
                p.edit("targets", put("/delegations/roles/0", "paths", json!(["*"])))
            }),
        ),
        fault(Hashes, "form-missing", all, |p| {
            p.edit("targets", |json| {
                json["delegations"]["roles"].as_array_mut().unwrap().iter_mut().for_each(|role| {
                    role.as_object_mut().unwrap().remove("path_hash_prefixes").unwrap();
                });
            })
        }),
        fault(Succinct, "succinct-bits", PY | JS | GO, |p| {
            p.edit("targets", set("/delegations/succinct_roles/bit_length", json!(33)))
        }),
        fault(Paths, "delegation-unknown-field", TOUGH, |p| {
            p.edit("targets", put("/delegations", "x-note", json!("hello")))
        }),
        another(
            "role",
            fault(Paths, "delegation-unknown-field", TOUGH, |p| {
                p.edit("targets", put("/delegations/roles/0", "x-note", json!(1)))
            }),
        ),
        fault(Paths, "role-name-repeated", PY | JS, |p| {
            p.edit("targets", |json| {
                let roles = json["delegations"]["roles"].as_array_mut().unwrap();
                roles.push(roles[0].clone());
            })
        }),
        fault(Paths, "role-name-integer", JS, |p| {
            p.edit("targets", |json| {
                let mut role = json["delegations"]["roles"][0].clone();
                for (name, path) in [("10", "ten"), ("9", "nine")] {
                    (role["name"], role["paths"]) = (json!(name), json!([path]));
                    json["delegations"]["roles"].as_array_mut().unwrap().push(role.clone());
                }
            })
            .edit("snapshot", |json| {
                for name in ["10.json", "9.json"] {
                    json["meta"][name] = json!({"version": 1});
                }
            })
            .after(|dir| {
                ["10", "9"].iter().for_each(|name| leaf_like(dir, name, |_| ()));
            })
        }),
        fault(Hashes, "target-misplaced", all, |p| {
            p.edit("targets", |json| {
                json["delegations"]["roles"].as_array_mut().unwrap().iter_mut().for_each(|role| {
                    role["path_hash_prefixes"] = json!(["0123456789"]);
                });
            })
        }),
        another("folder", fault(Paths, "target-misplaced", PY | JS | GO, |p| p.target("team-a/file.txt"))),
        another(
            "dot",
            fault(Paths, "target-misplaced", JS, |p| {
                p.target(".team-file").edit("targets", set("/delegations/roles/0/paths", json!(["*"])))
            }),
        ),
        // Corners of JSON.
        fault(Flat, "byte-order-mark", all, |p| p.raw("timestamp", |file| format!("\u{feff}{file}"))),
        fault(Flat, "not-json", all, |p| p.raw("timestamp", |file| file[1..].to_owned())),
        fault(Flat, "number-not-integer", all, |p| {
            p.edit(LEAF, custom(json!({"a": "1.5"}))).text(LEAF, r#""1.5""#, "1.5")
        }),
        fault(Flat, "integer-large", JS, |p| p.edit(LEAF, custom(json!({"a": 9_007_199_254_740_993_u64})))),
        another("63", fault(Flat, "integer-large", JS | GO, |p| p.edit(LEAF, custom(json!({"a": (1_u64 << 63) + 1}))))),
        another(
            "64",
            fault(Flat, "integer-large", JS | GO | TOUGH, |p| {
                p.edit(LEAF, custom(json!({"a": "big"}))).text(LEAF, r#""big""#, "18446744073709551617")
            }),
        ),
        fault(Flat, "repeated-member", TOUGH, |p| {
            let field = r#""spec_version":"1.0.0","#;
            p.raw("timestamp", move |file| file.replace(field, &field.repeat(2)))
        }),
        fault(Flat, "text-not-normalised", TOUGH, |p| p.edit(LEAF, custom(json!({"a": "e\u{301}"})))),
        fault(Flat, "key-order-utf16", JS, |p| p.edit(LEAF, custom(json!({"\u{fffd}": 1, "\u{1F600}": 2})))),
        fault(Flat, "key-order-tough", TOUGH, |p| p.edit(LEAF, custom(json!({"f.txt": 1, "f.txt b": 2})))),
        another("quote", fault(Flat, "key-order-tough", TOUGH, |p| p.edit(LEAF, custom(json!({"A": 1, "\"": 2}))))),
        // Targets.
        fault(Flat, "custom-form", TOUGH, |p| p.edit(LEAF, custom(json!({})))),
        another("text", fault(Flat, "custom-form", TOUGH, |p| p.edit(LEAF, custom(json!("text"))))),
        fault(Flat, "target-entry", all, |p| p.edit(LEAF, entry(remove("", "length")))),
        another(
            "hash",
            fault(Flat, "hash-name", TOUGH, |p| {
                p.edit(LEAF, entry(|entry| entry["hashes"] = json!({"sha512": hex::encode(Sha512::digest(CONTENT))})))
            }),
        ),
        fault(Flat, "hash-form", PY | JS | GO, |p| {
            p.edit(
                LEAF,
                entry(|entry| {
                    let hash = entry["hashes"]["sha256"].as_str().unwrap().to_uppercase();
                    entry["hashes"]["sha256"] = hash.into();
                }),
            )
        }),
        fault(Flat, "path-not-in-url", all, |p| p.target("team?file#1")),
        fault(Flat, "path-unclean", JS | TOUGH, |p| p.target("team\\file")),
        // What a search comes to, and by which way.
        fault(Paths, "target-not-reached", PY | JS | GO, |p| {
            more_roles(p, 32, |role| role["terminating"] = false.into())
        }),
        another("terminating", fault(Paths, "target-not-reached", all, |p| more_roles(p, 1, |_| ()))),
        another("two-parents", fault(Paths, "target-not-reached", TOUGH, |p| two_parents(p, |_| ()))),
        Case {
            also: &["target-not-reached"],
            ..another(
                "two-parents",
                fault(Paths, "signature", all, |p| {
                    two_parents(p, |delegations| {
                        let other = Signer::from_seed(&[2; 32]);
                        let key = other.public();
                        delegations["keys"][key.key_id().to_string()] = key.to_value();
                        delegations["roles"][0]["keyids"] = json!([key.key_id().to_string()]);
                    })
                }),
            )
        },
        another(
            "delegation",
            fault(Paths, "threshold", all, |p| p.edit("targets", set("/delegations/roles/0/threshold", json!(2)))),
        ),
        another(
            "delegation-0",
            fault(Paths, "threshold", all, |p| p.edit("targets", set("/delegations/roles/0/threshold", json!(0)))),
        ),
        another(
            "delegation",
            fault(Paths, "role-key-missing", GO, |p| {
                p.edit("targets", |json| {
                    let role = &mut json["delegations"]["roles"][0];
                    role["keyids"].as_array_mut().unwrap().push(json!("ab".repeat(32)));
                })
            }),
        ),
        another(
            "no-key",
            fault(Flat, "signature", all, |p| {
                p.edit("root", |root| {
                    let (id, key) = no_key();
                    root["keys"][&id] = key;
                    root["roles"]["snapshot"]["keyids"] = json!([id]);
                })
                .raw("snapshot", |file| {
                    let mut file: Value = serde_json::from_str(&file).unwrap();
                    file["signatures"][0]["keyid"] = no_key().0.into();
                    file.to_string()
                })
            }),
        ),
        fault(Paths, "role-name", PY | JS, |p| renamed(p, "timestamp", &["1.timestamp.json"])),
        warning(Paths, "role-name-slash", |p| renamed(p, "a/b", &["1.a%2Fb.json", "1.a/b.json"])),
        // What is no mistake for most.
        note(Flat, "consistent-snapshot-true", AKTUALIZR, |p| p),
        note(Flat, "consistent-snapshot-false", JAVA, |p| {
            p.edit("root", set("/consistent_snapshot", json!(false))).after(|dir| {
                for role in ["snapshot", "targets"] {
                    fs::rename(dir.join(format!("1.{role}.json")), dir.join(format!("{role}.json"))).unwrap();
                }
            })
        }),
        note(Flat, "custom-empty-object", PHP, |p| p.edit(LEAF, custom(json!({"a": {}})))),
        note(Hashes, "form-hash-prefixes", Clients::of(&[Client::GoTuf242]) | RUST | JAVA | AKTUALIZR, |p| p),
        note(Paths, "form-paths", RUST | JAVA, |p| p),
        note(Flat, "key-type-ignored", Clients::NONE, |p| p.edit("root", unused_key("rsa", "rsassa-pss-sha256", RSA))),
        note(Flat, "path-rust-tuf", RUST, |p| p.target("team:file.txt")),
        note(Flat, "path-with-folder", Clients::NONE, |p| p.target("team/file.txt")),
        note(Flat, "snapshot-hash-missing", AKTUALIZR, |p| {
            p.edit("timestamp", |json| json["meta"]["snapshot.json"] = json!({"version": 1}))
        }),
        note(Flat, "target-empty", PHP, |p| {
            p.edit(LEAF, |json| {
                json["targets"]["empty"] = json!({"length": 0, "hashes": {"sha256": hex::encode(sha256(b""))}});
            })
        }),
        note(Flat, "text-control-character", RUST | PHP, |p| p.edit(LEAF, custom(json!({"a": "b\nc"})))),
        note(Flat, "text-not-ascii", PHP, |p| p.edit(LEAF, custom(json!({"a": "é"})))),
        note(Flat, "unknown-field-php", PHP, |p| p.edit("root", put("/roles/timestamp", "x-note", json!(1)))),
        another(
            "key",
            note(Flat, "unknown-field-php", PHP, |p| {
                p.edit("root", |root| {
                    let key = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "ab".repeat(32)}, "x-note": 1});
                    let id = hex::encode(sha256(&canonical::to_vec(&key).unwrap()));
                    root["keys"][id] = key;
                })
            }),
        ),
        another(
            "target",
            note(Flat, "unknown-field-php", PHP, |p| p.edit(LEAF, entry(|entry| entry["x-note"] = json!(1)))),
        ),
        another(
            "signature",
            note(Flat, "unknown-field-php", PHP, |p| {
                p.raw("snapshot", |file| file.replace(r#"{"keyid""#, r#"{"x-note":1,"keyid""#))
            }),
        ),
        note(Flat, "version-large", JAVA | AKTUALIZR, |p| p.edit("timestamp", set("/version", json!(1_u64 << 31)))),
        // What is no mistake yet.
        warning(Paths, "delegation-eager", |p| more_roles(p, 257, |role| role["paths"] = json!(["more-*"]))),
        warning(Flat, "not-read", |p| {
            let deep: &'static str = Box::leak(format!("{}{}", "[".repeat(70), "]".repeat(70)).into_boxed_str());
            p.edit("snapshot", put("", "x-deep", json!("deep"))).text("snapshot", r#""deep""#, deep)
        }),
        warning(Flat, "target-count", |p| {
            p.edit(LEAF, |json| {
                let entry = json["targets"]["team-file.txt"].clone();
                (0..1_100).for_each(|i| json["targets"][format!("more-{i}")] = entry.clone());
            })
        }),
        warning(Flat, "expires-soon", |p| {
            p.edit("root", |json| {
                json["expires"] = format_utc(SystemClock.now() + 86_400).into();
            })
        }),
        warning(Flat, "size-near-limit", |p| p.edit("timestamp", put("", "x-pad", json!("x".repeat(15_000))))),
        warning(Flat, "target-two-hashes", |p| {
            p.edit(LEAF, entry(|entry| entry["hashes"]["sha512"] = json!(hex::encode(Sha512::digest(CONTENT)))))
        }),
        warning(Flat, "snapshot-entries", |p| {
            p.edit("snapshot", |json| {
                (0..1_100).for_each(|i| json["meta"][format!("r{i}.json")] = json!({"version": 1}));
            })
        }),
        warning(Flat, "root-first-missing", |p| {
            p.after(|dir| fs::rename(dir.join("1.root.json"), dir.join("root.json")).unwrap())
        }),
    ]
}

fn good() -> Vec<Plan> {
    let forms = [("flat", Form::Flat), ("succinct", Form::Succinct), ("hashes", Form::Hashes), ("paths", Form::Paths)];
    let plain = forms.map(|(name, form)| Plan::new(&format!("good-{name}"), form).roots(3));
    let roles =
        more_roles(Plan::new("good-visits", Form::Paths).roots(3), 31, |role| role["terminating"] = false.into());
    plain.into_iter().chain([roles]).collect()
}

/// What the doctor says; its output is what the schema says, and its exit code follows from it.
fn doctor(place: &str, options: &[&str]) -> Report {
    let out = server::command(&[&["doctor", place, "--json"], options].concat()).output().expect("the binary runs");
    Checker::new().good("doctor-repository.json", &out.stdout);
    let report: Report = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
    assert_eq!(out.status.code(), Some(i32::from(report.errors > 0)), "{}", said(&out));
    report
}

fn verdict(report: &Report, client: Client) -> Verdict {
    report.clients.iter().find(|c| c.client == client).expect("one for each").verdict
}

/// Everybody whom it concerns.
fn all_of(finding: &Finding) -> Clients {
    let all = [&finding.refuse[..], &finding.miss, &finding.struggle].concat();
    Clients::of(&all)
}

/// Holds what a client did against what the doctor said of it.
fn agree(said: &mut Vec<String>, name: &str, client: Client, report: &Report, outcome: &Result<(), String>) {
    let expected = matches!(verdict(report, client), Verdict::CanUse | Verdict::WithWarnings);
    if outcome.is_ok() != expected {
        said.push(format!("{name}: doctor: {} {:?}, client: {outcome:?}", client.name(), verdict(report, client)));
    }
}

/// What tough does: loads the repository, and reads the target.
async fn tough(dir: &Path, root: &Path, target: &str) -> Result<(), String> {
    let url = |name: &str| reqwest::Url::from_directory_path(dir.join(name)).unwrap();
    let root = fs::read(root).unwrap();
    let loader = RepositoryLoader::new(&root, url("metadata"), url("targets")).transport(FilesystemTransport);
    let repository = loader.load().await.map_err(|e| e.to_string())?;
    let name = TargetName::new(target).map_err(|e| e.to_string())?;
    let stream = repository.read_target(&name).await.map_err(|e| e.to_string())?.ok_or("not found")?;
    let bytes: Vec<bytes::Bytes> = stream.try_collect().await.map_err(|e| e.to_string())?;
    (bytes.concat() == CONTENT).then_some(()).ok_or("another content".into())
}

/// The root that clients trust.
fn root_of(dir: &Path) -> PathBuf {
    let names = ["metadata/1.root.json", "metadata/root.json"];
    names.iter().map(|name| dir.join(name)).find(|path| path.exists()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_repositories_are_silent_each_fault_is_named_and_clients_do_as_it_says() {
    let scratch = help::scratch();
    let site = scratch.path().join("site");
    let mut wrong = Vec::new();
    let mut plans: BTreeMap<String, (PathBuf, String, Report)> = BTreeMap::new();
    for plan in good() {
        let dir = plan.make(&site);
        let root = root_of(&dir);
        let args = ["doctor", dir.to_str().unwrap(), "--root", root.to_str().unwrap()];
        assert_eq!(server::run(&[&args[..], &["--quiet"]].concat()), "", "{}", plan.name);
        let report = doctor(args[1], &["--root", args[3]]);
        assert_eq!((report.errors, report.warnings, report.seen.root), (0, 0, 3), "{report:#?}");
        plans.insert(plan.name.clone(), (dir, plan.target.clone(), report));
    }
    let base = |form: Form| {
        let all = plans.values().map(|(_, _, report)| report).collect::<Vec<_>>();
        let index = [Form::Flat, Form::Hashes, Form::Paths, Form::Succinct].iter().position(|f| *f == form).unwrap();
        let clients = Client::ALL.into_iter().filter(|c| verdict(all[index], *c) >= Verdict::MissesTargets);
        Clients::of(&clients.collect::<Vec<_>>())
    };
    let bases = [Form::Flat, Form::Hashes, Form::Paths, Form::Succinct].map(|form| (form, base(form)));
    for Case { plan, finding, level, hurt, also } in faults() {
        let dir = plan.make(&site);
        let report = doctor(dir.to_str().unwrap(), &[]);
        let (_, before) = bases.iter().find(|(form, _)| *form == plan.form).unwrap();
        let four = PY | JS | GO | TOUGH;
        let after = Clients::that(|client| verdict(&report, client) >= Verdict::MissesTargets);
        if (after & four) != ((*before | hurt) & four) {
            wrong.push(format!("{}: hurts {after}, expected {}", plan.name, (*before | hurt) & four));
        }
        let bad: Vec<_> =
            report.findings.iter().filter(|f| f.level > Level::Note).map(|f| (&f.name[..], f.level)).collect();
        let put_down = match level {
            Level::Note => report.findings.iter().any(|f| f.name == finding && f.level == level && all_of(f) == hurt),
            _ => bad.contains(&(finding, level)),
        };
        if !bad.iter().all(|b| b.0 == finding || also.contains(&b.0)) || !put_down {
            wrong.push(format!("{}: found {bad:?}, expected {level:?}", plan.name));
        }
        plans.insert(plan.name.clone(), (dir, plan.target.clone(), report));
    }
    assert!(plans.len() > 50);

    for (name, (dir, target, report)) in &plans {
        agree(&mut wrong, name, Client::Tough, report, &tough(dir, &root_of(dir), target).await);
    }
    let programs = clients::clients();
    let files = Files::serve(&site);
    for (program, client) in programs.iter().zip([Client::PythonTuf, Client::TufJs]) {
        let job = |(name, (dir, target, _)): (&String, &(PathBuf, String, Report))| {
            let place = json!({
                "metadata": format!("{}/{name}/metadata/", files.url()), "targets": format!("{}/{name}/targets/", files.url()),
                "root": root_of(dir), "cache": scratch.path().join("cache").join(client.name()).join(name),
            });
            let want = json!({"length": CONTENT.len()});
            json!({"path": target, "want": want, "download": true, "repository": place})
        };
        let jobs: Vec<Value> = plans.iter().map(job).collect();
        let answers = program.answers(&files.url(), &root_of(&site.join("good-flat")), scratch.path(), &jobs);
        assert_eq!(answers.len(), jobs.len());
        for ((name, (_, _, report)), answer) in plans.iter().zip(&answers) {
            let outcome = if answer["ok"] == true { Ok(()) } else { Err(answer["error"].to_string()) };
            agree(&mut wrong, name, client, report, &outcome);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The doctor on a line of its own: what it printed, and its exit code.
fn line(args: &[&str]) -> (String, Option<i32>) {
    let out = server::command(&[&["doctor"], args].concat()).output().expect("the binary runs");
    (said(&out), out.status.code())
}

#[test]
fn the_named_clients_decide_what_is_an_error() {
    let scratch = help::scratch();
    let dir = Plan::new("bins", Form::Succinct).make(scratch.path());
    let place = dir.to_str().unwrap();
    let report = doctor(place, &["--client", "tough,php-tuf"]);
    let form = report.findings.iter().find(|f| f.name == "form-succinct").unwrap();
    assert_eq!((form.level, &form.refuse[..]), (Level::Error, &[Client::Tough, Client::PhpTuf][..]));
    let told: Vec<Client> = report.clients.iter().map(|c| c.client).collect();
    assert_eq!(told, [Client::Tough, Client::PhpTuf]);
    assert!(report.findings.iter().any(|f| f.name == "key-id-php"));

    let (text, code) = line(&[place, "--client", "tough", "--quiet"]);
    assert!(
        text.starts_with("error    form-succinct: ") && text.contains("who  tough refuses the repository"),
        "{text}"
    );
    assert!(text.ends_with("tough          cannot use it: form-succinct\n"), "{text}");
    assert_eq!(code, Some(1));
    let (text, code) = line(&[place]);
    assert!(text.contains("note     form-succinct: ") && text.contains("python-tuf     can use it\n"), "{text}");
    assert!(
        text.contains("root-on-trust")
            && text.ends_with("notes; judged for python-tuf, tuf-js, go-tuf, go-tuf-2.4.2\n"),
        "{text}"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn what_is_no_repository_is_said_and_what_is_typed_wrongly_refused() {
    let scratch = help::scratch();
    let node = scratch.path().join("node");
    server::init(&node, &["--bins", "4"]);
    let node = node.to_str().unwrap();
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for (args, code, words) in [
        (&[node][..], 2, "`--data "),
        (&[empty.to_str().unwrap()], 2, "holds a timestamp.json"),
        (&["ftp://127.0.0.1/"], 2, "http, https or a folder"),
        (&["http://127.0.0.1:1/"], 3, "cannot be read"),
        (&[node, "--client", "tof"], 2, "go-tuf-2.4.2"),
        (&[node, "--data", node], 2, "cannot be used with"),
        (&["--client", "tough", "--data", node], 2, "about a REPOSITORY"),
        (&["--timeout", "9", "--data", node], 2, "about a REPOSITORY"),
        (&["--root", "/absent", node], 2, "/absent cannot be read"),
        (&[][..], 2, "--data"),
    ] {
        let (text, found) = line(args);
        assert!(found == Some(code) && text.contains(words), "{args:?}: {found:?} {text}");
    }
}

/// A web server over a folder, which answers `missing` for what is not there and sends `moved` elsewhere.
fn serve(dir: PathBuf, missing: u16, moved: Option<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.unwrap(), &dir, missing, &moved, |_| false);
        }
    });
    url
}

/// Answers one request, unless `silent` says of its path that nothing is to be said; whether it was answered.
fn answer(
    mut stream: &TcpStream,
    dir: &Path,
    missing: u16,
    moved: &Option<(&'static str, String)>,
    silent: impl Fn(&str) -> bool,
) -> bool {
    let mut request = String::new();
    let mut reader = BufReader::new(stream);
    while reader.read_line(&mut request).is_ok_and(|n| n > 2) {}
    let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    if silent(&path) {
        return false;
    }
    let (status, more, body) = match (fs::read(dir.join(&path)), moved) {
        (_, Some((from, to))) if path == *from => (302, format!("location: {to}/{path}\r\n"), Vec::new()),
        (Ok(file), _) => (200, String::new(), file),
        (Err(_), _) => (missing, String::new(), Vec::new()),
    };
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    true
}

#[test]
fn a_web_server_is_looked_at_too() {
    let scratch = help::scratch();
    let dir = Plan::new("web", Form::Flat).make(scratch.path());
    let names = |report: &Report| report.findings.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    let good = serve(dir.clone(), 404, None);
    for url in [good.clone(), format!("{good}/metadata"), format!("{good}/metadata/")] {
        let report = doctor(&url, &[]);
        assert_eq!((report.errors, report.warnings), (0, 0), "{url}: {report:#?}");
        assert_eq!(report.seen.repository, format!("{good}/metadata/"));
    }
    let report = doctor(&serve(dir.clone(), 403, None), &[]);
    let status = report.findings.iter().find(|f| f.name == "root-end-status").unwrap();
    assert!(status.level == Level::Error && status.refuse.contains(&Client::GoTuf), "{status:#?}");
    assert_eq!(verdict(&report, Client::PythonTuf), Verdict::CanUse);
    let report = doctor(&serve(dir.clone(), 410, None), &[]);
    assert_eq!(verdict(&report, Client::PythonTuf), Verdict::CannotUse);
    assert_eq!(verdict(&report, Client::Tough), Verdict::CanUse);
    let report = doctor(&serve(dir.clone(), 404, Some(("metadata/1.snapshot.json", good))), &[]);
    assert!(report.errors == 0 && names(&report).contains(&"redirect".to_owned()), "{report:#?}");
    let broken = serve(dir, 500, None) + "/metadata/";
    let report = doctor(&broken, &[]);
    assert!(names(&report).contains(&"file-unreadable".to_owned()), "{report:#?}");
}

#[test]
fn a_chain_of_roots_is_followed_to_its_end() {
    let scratch = help::scratch();
    let of = |name: &str, roots: u64, change: fn(&Path)| {
        let dir = Plan::new(name, Form::Flat).roots(roots).after(change).make(scratch.path());
        doctor(dir.to_str().unwrap(), &[])
    };
    let has = |report: &Report, name: &str, level: Level| {
        assert!(report.findings.iter().any(|f| f.name == name && f.level == level), "{name}: {report:#?}");
    };
    let gap = of("gap", 4, |dir| {
        fs::copy(dir.join("4.root.json"), dir.join("root.json")).unwrap();
        fs::remove_file(dir.join("3.root.json")).unwrap();
    });
    has(&gap, "root-gap", Level::Error);
    assert_eq!(gap.seen.root, 2);
    has(
        &of("renamed", 2, |dir| {
            fs::copy(dir.join("1.root.json"), dir.join("2.root.json")).unwrap();
        }),
        "root-version",
        Level::Error,
    );
    let many = of("many", 258, |_| ());
    has(&many, "root-count", Level::Warning);
    assert_eq!(many.seen.root, 258);
}

#[test]
fn a_root_with_the_last_version_has_no_next() {
    let scratch = help::scratch();
    let plan = Plan::new("last", Form::Flat).edit("root", set("/version", json!(u64::MAX)));
    let plan = plan.after(|dir| {
        fs::copy(dir.join("1.root.json"), dir.join(format!("{}.root.json", u64::MAX))).unwrap();
    });
    let report = doctor(plan.make(scratch.path()).to_str().unwrap(), &[]);
    assert_eq!(report.seen.root, u64::MAX);
    assert!(report.findings.iter().any(|f| f.name == "version-large"), "{report:#?}");
}

#[test]
fn a_delegation_that_cannot_be_met_costs_most_clients_only_its_targets() {
    let scratch = help::scratch();
    let of = |name: &str, change: fn(&mut Value)| {
        let dir = Plan::new(name, Form::Paths).edit("targets", change).make(scratch.path());
        let report = doctor(dir.to_str().unwrap(), &[]);
        [Client::PythonTuf, Client::TufJs, Client::GoTuf, Client::Tough].map(|client| verdict(&report, client))
    };
    use Verdict::{CanUse, CannotUse, MissesTargets};
    let two = of("two", |json| json["delegations"]["roles"][0]["threshold"] = 2.into());
    assert_eq!(two, [MissesTargets, MissesTargets, MissesTargets, CannotUse]);
    let none = of("none", |json| json["delegations"]["roles"][0]["threshold"] = 0.into());
    assert_eq!(none, [CannotUse, CannotUse, MissesTargets, CannotUse]);
    let key = of("key", |json| {
        json["delegations"]["roles"][0]["keyids"].as_array_mut().unwrap().push(json!("ab".repeat(32)));
    });
    assert_eq!(key, [CanUse, CanUse, MissesTargets, CanUse]);
}

#[test]
fn what_is_too_large_to_be_looked_at_is_said() {
    let scratch = help::scratch();
    let of = |plan: Plan| doctor(plan.make(scratch.path()).to_str().unwrap(), &[]);
    let level = |report: &Report, name: &str| report.findings.iter().find(|f| f.name == name).map(|f| f.level);
    let large = of(Plan::new("large", Form::Flat).after(|dir| {
        fs::File::create(dir.join("1.targets.json")).unwrap().set_len(64 << 20).unwrap();
    }));
    assert_eq!(level(&large, "file-too-large"), Some(Level::Warning));
    let large = of(Plan::new("large-timestamp", Form::Flat).after(|dir| {
        fs::File::create(dir.join("timestamp.json")).unwrap().set_len(64 << 20).unwrap();
    }));
    assert_eq!(level(&large, "file-too-large"), Some(Level::Error));

    // Patterns that would be compared for minutes end with what was found until then.
    let slow =
        of(Plan::new("slow", Form::Paths).target(&format!("team-{}", "a".repeat(100_000))).edit("targets", |json| {
            let pattern = format!("team-*{}b", "a".repeat(50_000));
            json["delegations"]["roles"][0]["paths"] = vec![pattern; 100].into();
        }));
    assert_eq!(level(&slow, "not-all-read"), Some(Level::Note), "{slow:#?}");
    assert!(slow.seen.sampled && level(&slow, "target-misplaced").is_none());

    let many = of(more_roles(Plan::new("many", Form::Paths), 1_100, |role| role["paths"] = json!(["more-*"])));
    assert_eq!(level(&many, "delegation-count"), Some(Level::Warning));

    let unchecked = of(Plan::new("unchecked", Form::Flat)
        .edit("root", |root| {
            let key = json!({"keytype": "rsa", "scheme": "rsassa-pss-sha512", "keyval": {"public": RSA}});
            root["keys"]["rsa"] = key;
            root["roles"]["snapshot"]["keyids"].as_array_mut().unwrap().push("rsa".into());
        })
        .raw("snapshot", |file| {
            let mut file: Value = serde_json::from_str(&file).unwrap();
            file["signatures"].as_array_mut().unwrap().push(json!({"keyid": "rsa", "sig": "00"}));
            file.to_string()
        }));
    assert_eq!(level(&unchecked, "signature-not-checked"), Some(Level::Note));
}

#[test]
fn a_server_that_says_nothing_is_left_when_the_time_is_up() {
    let scratch = help::scratch();
    let dir = Plan::new("silent", Form::Flat).make(scratch.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let answered = answer(&stream, &dir, 404, &None, |path| path == "metadata/1.snapshot.json");
            if !answered {
                held.push(stream);
            }
        }
    });
    let started = std::time::Instant::now();
    let report = doctor(&url, &["--timeout", "3"]);
    let up = report.findings.iter().find(|f| f.name == "time-up").unwrap();
    assert_eq!((up.level, &up.spots[0].file[..], report.seen.timestamp), (Level::Warning, "1.snapshot.json", 1));
    assert!(report.seen.sampled && started.elapsed() < Duration::from_secs(15), "{report:#?}");
}

#[test]
fn a_node_of_our_own_is_well() {
    let scratch = help::scratch();
    let data = scratch.path().join("repo");
    server::init(&data, &["--bins", "16", "--partitions", "2"]);
    let node = Server::start(&data, &["--min-free-mib", "0"]);
    for path in ["a/b.txt", "c", "d"] {
        crate::doctor::add(&node.url(), path);
    }
    let root = data.join("root.json");
    let root = root.to_str().unwrap();
    for url in [node.url(), format!("{}/metadata/", node.url())] {
        assert_eq!(server::run(&["doctor", &url, "--root", root, "--quiet"]), "");
    }
    let report = doctor(&node.url(), &["--root", root]);
    assert_eq!((report.errors, report.warnings, report.seen.delegated, report.seen.targets), (0, 0, 16, 3));
    assert_eq!(verdict(&report, Client::PythonTuf), Verdict::CanUse);
    assert_eq!(verdict(&report, Client::Tough), Verdict::CannotUse);
    node.stop();
    let store = data.join("store");
    assert_eq!(server::run(&["doctor", store.to_str().unwrap(), "--root", root, "--quiet"]), "");
}

#[tokio::test]
async fn no_file_makes_it_panic() {
    let scratch = help::scratch();
    let dir = Plan::new("torn", Form::Paths).make(scratch.path()).join("metadata");
    let timeout = Duration::from_secs(600);
    let subject = Subject { repository: dir.to_str().unwrap().into(), root: None, clients: Vec::new(), timeout };
    let files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..600 {
        let path = &files[round % files.len()];
        let good = fs::read(path).unwrap();
        let mut torn = good.clone();
        match round % 3 {
            0 => torn.truncate(random.usize(..good.len())),
            1 => torn[random.usize(..good.len())] = random.u8(..),
            _ => {
                // Another value in the place of one: what a parser takes and a reader may not.
                let text = String::from_utf8(good.clone()).unwrap();
                let places: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
                let (at, value) = (places[random.usize(..places.len())], ["null", "[]", "{}", "-1", "\"x\"", "1e9"]);
                let end = text[at..].find([',', '}']).map_or(text.len(), |end| at + end);
                torn = format!("{}{}{}", &text[..at], value[random.usize(..value.len())], &text[end..]).into_bytes();
            }
        }
        fs::write(path, &torn).unwrap();
        match repository::check(&subject, &SystemClock, &|_| ()).await {
            Ok(report) => assert!(torn == good || report.errors + report.warnings > 0 || round % 3 == 1, "{report:#?}"),
            Err(e) => assert_eq!(e.kind, Kind::Invalid, "{e}"),
        }
        fs::write(path, good).unwrap();
    }
}
