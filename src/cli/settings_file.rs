//! The `tuflog.toml` that `init` writes: every setting with its help and its default, commented out.
//!
//! The help is that of `serve --help`, so that there is one text for a setting.

use clap::{Args, Command};

use crate::config::{KEYS, Settings, defaults};

/// The text of the file.
pub fn template() -> String {
    let mut out = String::from(
        "# Settings of `tuflog serve`. Uncomment what you change: the values shown are the defaults, or examples where\n\
         # there is none. A flag wins over its variable TUFLOG_…, the variable over this file. Unknown keys are refused.\n\
         # Relative paths are taken from the directory of this file.\n",
    );
    let command = Settings::augment_args(Command::new("serve"));
    for key in KEYS {
        let arg = command.get_arguments().find(|a| a.get_id() == key.rsplit('.').next().unwrap_or(key));
        let help = arg.and_then(|a| a.get_help()).map(ToString::to_string).unwrap_or_default();
        let help = help.split(" [default: ").next().unwrap_or_default();
        out.push_str(&format!("\n# {help}\n# {key} = {}\n", value(key)));
    }
    out
}

/// The default of a key, or an example.
fn value(key: &str) -> String {
    match key {
        "listen" => format!("{:?}", defaults::LISTEN),
        "targets" => "\"/srv/targets\"".into(),
        "min_cut_interval_ms" => defaults::MIN_CUT_INTERVAL_MS.to_string(),
        "queue_mib" => defaults::QUEUE_MIB.to_string(),
        "groups" => defaults::GROUPS.to_string(),
        "uploads" => defaults::UPLOADS.to_string(),
        "min_free_mib" => defaults::MIN_FREE_MIB.to_string(),
        "extra_hashes" => "[]".into(),
        "store.url" => "\"s3://bucket/prefix\"".into(),
        "store.endpoint" => "\"https://s3.example.org\"".into(),
        "store.region" => "\"us-east-1\"".into(),
        "store.allow_http" => "false".into(),
        "store.options" => "{ virtual_hosted_style_request = \"true\" }".into(),
        "auth.tokens_file" => "\"/etc/tuflog/tokens\"".into(),
        "insecure" => "false".into(),
        "log" => "\"info\"".into(),
        "log_format" => "\"auto\"".into(),
        "drain_s" => defaults::DRAIN_S.to_string(),
        _ => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_there_and_can_be_uncommented() {
        assert_eq!(Settings::parse(&template()).unwrap(), Settings::default());
        let is_key = |line: &str| KEYS.iter().any(|k| line.starts_with(&format!("# {k} = ")));
        let active: Vec<String> =
            template().lines().map(|l| if is_key(l) { l[2..].to_owned() } else { l.to_owned() }).collect();
        let settings = Settings::parse(&active.join("\n")).unwrap();
        let written = serde_json::to_value(&settings).unwrap();
        assert!(KEYS.iter().all(|k| written.pointer(&format!("/{}", k.replace('.', "/"))).is_some()), "{written}");
        assert!(!template().contains('…') || template().matches('…').count() == 1);
    }
}
