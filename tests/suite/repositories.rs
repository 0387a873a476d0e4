//! Small TUF repositories with real signatures, each in a folder, for those who read repositories of others.
//!
//! A repository is good until it is changed: `edit` changes what is signed, `text` the signed text itself, `raw` the
//! file around it, and `after` what lies in the folder in the end. Files are made in the order of dependence, so a
//! change is carried into the lengths and hashes of what names the file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha384, Sha512};
use tuflog::bins::sha256;
use tuflog::clock::{Clock, SystemClock, format_utc};
use tuflog::tuf::{Signer, canonical};

/// What the target holds.
pub const CONTENT: &[u8] = b"hello\n";

/// How targets are delegated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    Flat,
    /// To four succinct bins.
    Succinct,
    /// To four bins by hex prefixes.
    Hashes,
    /// To one role by a pattern.
    Paths,
}

type Edit = Box<dyn Fn(&str, &mut Value)>;
type Text = Box<dyn Fn(&str, String) -> String>;

/// A repository to be made.
pub struct Plan {
    pub name: String,
    pub form: Form,
    /// The target that clients look for.
    pub target: String,
    edit: Edit,
    text: Text,
    raw: Text,
    after: Box<dyn Fn(&Path)>,
    signer: Signer,
    key_id: String,
    roots: u64,
}

/// The role `LEAF` in a change is the one that lists the target.
pub const LEAF: &str = "leaf";

impl Plan {
    pub fn new(name: &str, form: Form) -> Plan {
        let signer = Signer::from_seed(&[1; 32]);
        Plan {
            name: name.into(),
            form,
            target: "team-file.txt".into(),
            edit: Box::new(|_, _| ()),
            text: Box::new(|_, text| text),
            raw: Box::new(|_, text| text),
            after: Box::new(|_| ()),
            key_id: signer.public().key_id().to_string(),
            signer,
            roots: 1,
        }
    }

    /// Changes the signed part of a role before it is signed.
    pub fn edit(mut self, role: &'static str, change: impl Fn(&mut Value) + 'static) -> Plan {
        let before = self.edit;
        self.edit = Box::new(move |of, signed| {
            before(of, signed);
            if of == role {
                change(signed);
            }
        });
        self
    }

    /// Replaces text in what is signed, for what no JSON library writes.
    pub fn text(mut self, role: &'static str, from: &'static str, to: &'static str) -> Plan {
        self.text = Box::new(move |of, text| if of == role { text.replace(from, to) } else { text });
        self
    }

    /// Changes the file of a role after it is signed.
    pub fn raw(mut self, role: &'static str, change: impl Fn(String) -> String + 'static) -> Plan {
        self.raw = Box::new(move |of, text| if of == role { change(text) } else { text });
        self
    }

    /// Changes the folder of metadata in the end.
    pub fn after(mut self, change: impl Fn(&Path) + 'static) -> Plan {
        self.after = Box::new(change);
        self
    }

    /// Which other target is looked for.
    pub fn target(mut self, path: &str) -> Plan {
        self.target = path.into();
        self
    }

    /// Puts the key under another id.
    pub fn key_id(mut self, id: &str) -> Plan {
        self.key_id = id.into();
        self
    }

    /// How many roots there are.
    pub fn roots(mut self, roots: u64) -> Plan {
        self.roots = roots;
        self
    }

    /// Makes it: `dir/NAME/{metadata,targets}`; answers `dir/NAME`.
    pub fn make(&self, dir: &Path) -> PathBuf {
        let dir = dir.join(&self.name);
        let metadata = dir.join("metadata");
        fs::create_dir_all(&metadata).unwrap();
        self.put_target(&dir.join("targets"));
        let id = &self.key_id;
        let role = json!({"keyids": [id], "threshold": 1});
        let keys = json!({id.as_str(): self.signer.public().to_value()});
        for n in 1..=self.roots {
            let mut signed = signed("root", n);
            signed["consistent_snapshot"] = true.into();
            signed["keys"] = keys.clone();
            signed["roles"] = json!({"root": role, "timestamp": role, "snapshot": role, "targets": role});
            self.put(&metadata, "root", &format!("{n}.root.json"), signed);
        }

        let entry = json!({"length": CONTENT.len(), "hashes": {"sha256": hex::encode(sha256(CONTENT))}});
        let bin = sha256(self.target.as_bytes())[0] >> 6;
        let mut targets = signed("targets", 1);
        targets["targets"] = json!({});
        let mut meta = json!({});
        for (name, leaf) in self.delegated(bin) {
            let mut role = targets.clone();
            if leaf {
                role["targets"][&self.target] = entry.clone();
            }
            let of = if leaf { LEAF } else { "other" };
            self.put(&metadata, of, &format!("1.{name}.json"), role);
            meta[format!("{name}.json")] = json!({"version": 1});
        }
        match self.form {
            Form::Flat => targets["targets"][&self.target] = entry,
            Form::Succinct => {
                let succinct = json!({"bit_length": 2, "keyids": [id], "name_prefix": "bins", "threshold": 1});
                targets["delegations"] = json!({"keys": keys, "succinct_roles": succinct});
            }
            Form::Hashes => {
                let role = |bin: usize| {
                    let prefixes: Vec<String> = (0..4).map(|i| format!("{:x}", bin * 4 + i)).collect();
                    let name = format!("bins-{bin}");
                    json!({"name": name, "keyids": [id], "threshold": 1, "terminating": true, "path_hash_prefixes": prefixes})
                };
                targets["delegations"] = json!({"keys": keys, "roles": [role(0), role(1), role(2), role(3)]});
            }
            Form::Paths => {
                let role =
                    json!({"name": "team", "keyids": [id], "threshold": 1, "terminating": true, "paths": ["team-*"]});
                targets["delegations"] = json!({"keys": keys, "roles": [role]});
            }
        }
        // What lists the target is the leaf, whichever role that is.
        let of = if self.form == Form::Flat { LEAF } else { "targets" };
        let file = self.put(&metadata, of, "1.targets.json", targets);
        meta["targets.json"] = named(&file);
        let mut snapshot = signed("snapshot", 1);
        snapshot["meta"] = meta;
        let file = self.put(&metadata, "snapshot", "1.snapshot.json", snapshot);
        let mut timestamp = signed("timestamp", 1);
        timestamp["meta"] = json!({"snapshot.json": named(&file)});
        self.put(&metadata, "timestamp", "timestamp.json", timestamp);
        (self.after)(&metadata);
        dir
    }

    /// The delegated roles, and which of them lists the target.
    fn delegated(&self, bin: u8) -> Vec<(String, bool)> {
        match self.form {
            Form::Flat => Vec::new(),
            Form::Succinct | Form::Hashes => (0..4).map(|i| (format!("bins-{i}"), i == bin)).collect(),
            Form::Paths => vec![("team".into(), true)],
        }
    }

    /// Signs a role and writes its file.
    fn put(&self, metadata: &Path, of: &str, name: &str, mut signed: Value) -> String {
        (self.edit)(of, &mut signed);
        let message = canonical::to_vec(&signed).unwrap();
        let message = (self.text)(of, String::from_utf8(message).unwrap());
        let signature = hex::encode(self.signer.sign(message.as_bytes()));
        let signatures = json!([{"keyid": self.key_id, "sig": signature}]);
        let signed = (self.text)(of, signed.to_string());
        let text = format!(r#"{{"signatures":{signatures},"signed":{signed}}}"#);
        let text = (self.raw)(of, text);
        fs::write(metadata.join(name), &text).unwrap();
        text
    }

    /// The target under the names that clients ask for.
    fn put_target(&self, targets: &Path) {
        let digests = [sha256(CONTENT).to_vec(), Sha384::digest(CONTENT).to_vec(), Sha512::digest(CONTENT).to_vec()];
        let (folder, file) =
            self.target.rsplit_once('/').map_or(("", &self.target[..]), |(folder, file)| (folder, file));
        let named = digests.iter().map(hex::encode).flat_map(|digest| {
            [targets.join(folder).join(format!("{digest}.{file}")), targets.join(format!("{digest}.{}", self.target))]
        });
        for path in named.chain([targets.join(&self.target)]) {
            if fs::create_dir_all(path.parent().unwrap()).is_ok() {
                let _ = fs::write(path, CONTENT); // some names are not for a file system
            }
        }
    }
}

/// What every role has.
fn signed(kind: &str, version: u64) -> Value {
    let expires = format_utc(SystemClock.now() + 90 * 86_400);
    json!({"_type": kind, "spec_version": "1.0.0", "version": version, "expires": expires})
}

/// What one file says of another.
fn named(file: &str) -> Value {
    json!({"version": 1, "length": file.len(), "hashes": {"sha256": hex::encode(sha256(file.as_bytes()))}})
}
