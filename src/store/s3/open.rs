//! Opening: settings to client, and the trial of the two conditions.

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStoreExt, PutMode, RetryConfig, UpdateVersion};

use super::S3Store;
use super::retry::{self, Attempt, Failure};
use crate::config;
use crate::error::{Error, Result};
use crate::store::is_part;

/// Where a bucket is and how it is talked to.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// The server's address; Amazon's if `None`.
    pub endpoint: Option<String>,
    /// The bucket's region; that of the environment, else us-east-1, if `None`.
    pub region: Option<String>,
    /// Whether the endpoint may be `http:`.
    pub allow_http: bool,
    /// Any other option of the client, by the name that `object_store` gives it.
    pub options: config::Options,
}

impl Settings {
    /// What the configuration says; `None` if it names no bucket.
    pub fn of(settings: &config::Store) -> Result<Option<Settings>> {
        let config::Store { url, endpoint, region, allow_http, options } = settings.clone();
        let Some(url) = url else {
            let stray = [
                ("store.endpoint", endpoint.is_some()),
                ("store.region", region.is_some()),
                ("store.allow_http", allow_http == Some(true)),
                ("store.options", options.is_some()),
            ];
            return match stray.iter().find(|(_, is_set)| *is_set) {
                Some((field, _)) => Err(Error::invalid(*field, "means nothing without store.url")),
                None => Ok(None),
            };
        };
        let (allow_http, options) = (allow_http.unwrap_or(false), options.unwrap_or_default());
        Ok(Some(Settings { url, endpoint, region, allow_http, options }))
    }

    /// The bucket, and what stands before every name.
    fn place(&self) -> Result<(&str, String)> {
        let bad = || {
            Error::invalid(
                "store.url",
                format!("must be s3://BUCKET, s3://BUCKET/PREFIX or file:///DIR, not {:?}", self.url),
            )
        };
        let rest = self.url.strip_prefix("s3://").ok_or_else(bad)?.trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_part(bucket) {
            return Err(bad());
        }
        if prefix.is_empty() {
            return Ok((bucket, String::new()));
        }
        if !prefix.split('/').all(is_part) {
            let rule = "the prefix must be `/`-separated parts of [A-Za-z0-9._-] that do not begin with a dot";
            return Err(Error::invalid("store.url", format!("{:?}: {rule}", self.url)));
        }
        Ok((bucket, format!("{prefix}/")))
    }

    /// The client, and what stands before every name. The environment counts least, these settings most.
    pub(super) fn client(&self) -> Result<(AmazonS3, String)> {
        let (bucket, prefix) = self.place()?;
        let agent = AmazonS3ConfigKey::Client(ClientConfigKey::UserAgent);
        let http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        let mut builder = AmazonS3Builder::from_env().with_config(agent, concat!("tuflog/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.options.0 {
            let field = || format!("store.options.{name}");
            let key: AmazonS3ConfigKey = name
                .to_ascii_lowercase()
                .parse()
                .map_err(|_| Error::invalid(field(), "is no option of object_store's S3 client"))?;
            if matches!(key, AmazonS3ConfigKey::Bucket | AmazonS3ConfigKey::ConditionalPut) {
                return Err(Error::invalid(
                    field(),
                    "is not free: store.url names the bucket, and conditions are needed",
                ));
            }
            builder = builder.with_config(key, value);
        }
        let settings = [(AmazonS3ConfigKey::Endpoint, &self.endpoint), (AmazonS3ConfigKey::Region, &self.region)];
        for (key, value) in settings {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
        if self.allow_http {
            builder = builder.with_config(http, "true");
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
        if endpoint.starts_with("http:") && builder.get_config_value(&http).as_deref() != Some("true") {
            let rule = format!("must be set for {endpoint}: whoever is on the way sees everything and may change it");
            return Err(Error::invalid("store.allow_http", rule));
        }
        let client = builder
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .map_err(|e| Error::invalid("store.options", e.to_string()))?;
        Ok((client, prefix))
    }
}

/// How a trial ended before its end.
enum Stop {
    Failure(Failure),
    Lacks(&'static str),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

impl S3Store {
    /// Makes sure that the bucket is there and can be read. It asks for what is not there: without the permission to
    /// list (s3:ListBucket), S3 answers 403 instead of 404, and a node would wait for ever to learn what is missing.
    pub(super) async fn look(&self) -> Result<()> {
        let mut tries = self.tries("cannot be opened".into());
        loop {
            match self.fetch(".probe/none").await {
                Ok(_) => return Ok(()),
                Err(failure) => tries.again_at_start(failure).await?,
            }
        }
    }

    /// Makes sure that the server keeps both conditions; answers its time, in Unix seconds. An answer that is lost begins
    /// the trial anew, at another key.
    pub(super) async fn probe(&self) -> Result<u64> {
        self.look().await?;
        let mut tries = self.tries("cannot be opened".into());
        loop {
            let mut unique = [0; 16];
            getrandom::fill(&mut unique).map_err(|e| Error::unavailable(format!("no randomness: {e}")))?;
            let name = format!(".probe/{}", hex::encode(unique));
            let tried = self.try_conditions(&name).await;
            if let Err(failure) = self.remove(&name).await {
                tracing::warn!(object = name, ?failure, "the object that tried the store's conditions is left there");
            }
            match tried {
                Ok(time) => return Ok(time),
                Err(Stop::Lacks(what)) => {
                    let why = "without it two nodes could publish against each other; use a server that keeps it";
                    return Err(Error::invalid(retry::ENDPOINT, format!("the server {what}: {why}")).context(&self.url));
                }
                Err(Stop::Failure(failure)) => tries.again_at_start(failure).await?,
            }
        }
    }

    async fn try_conditions(&self, name: &str) -> std::result::Result<u64, Stop> {
        const NO_CREATE: &str = "does not keep If-None-Match: * on PUT";
        const NO_MATCH: &str = "does not keep If-Match on PUT";
        let body = |n: u8| vec![n; 64].into();
        let update = |tag: &str| PutMode::Update(UpdateVersion { e_tag: Some(tag.to_owned()), version: None });
        let unsupported = |what| {
            move |failure| match failure {
                Failure::Refused { field: retry::ENDPOINT, .. } => Stop::Lacks(what),
                other => Stop::Failure(other),
            }
        };
        // The HTTP client sends again what a closed connection may have carried: then it is refused, and there.
        let is_there = async |n| Ok::<_, Failure>(self.fetch(name).await?.is_some_and(|there| there.bytes == body(n)));
        match self.put(name, body(1), PutMode::Create).await {
            Ok(_) => {}
            Err(Failure::Condition) if is_there(1).await? => {}
            Err(failure) => return Err(unsupported(NO_CREATE)(failure)),
        }
        match self.put(name, body(2), PutMode::Create).await {
            Ok(_) => return Err(Stop::Lacks(NO_CREATE)),
            Err(Failure::Condition) => {}
            Err(failure) => return Err(failure.into()),
        }
        let there = self.fetch(name).await?.filter(|there| there.bytes == body(1));
        let there = there.ok_or(Stop::Lacks("does not show what was just written"))?;
        let first = there.tag.ok_or(Stop::Lacks("gives no ETag"))?;
        match self.put(name, body(3), update(&first)).await {
            Ok(_) => {}
            Err(Failure::Condition) if is_there(3).await? => {}
            Err(Failure::Condition) => return Err(Stop::Lacks("refuses If-Match with the ETag it gave")),
            Err(failure) => return Err(unsupported(NO_MATCH)(failure)),
        }
        match self.put(name, body(4), update(&first)).await {
            Ok(_) => return Err(Stop::Lacks(NO_MATCH)),
            Err(Failure::Condition) => {}
            Err(failure) => return Err(failure.into()),
        }
        match self.fetch_dated(name).await? {
            Some((there, time)) if there.bytes == body(3) => Ok(time),
            _ => Err(Stop::Lacks(NO_MATCH)),
        }
    }

    async fn remove(&self, name: &str) -> Attempt<()> {
        let key: Path = self.key(name);
        match retry::attempt(self.client.delete(&key)).await {
            Ok(()) | Err(Failure::Absent) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn settings(url: &str, options: &[(&str, &str)]) -> Settings {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = config::Options(options.iter().map(own).collect());
        Settings { url: url.into(), options, ..Settings::default() }
    }

    #[test]
    fn a_url_is_a_bucket_and_perhaps_a_prefix() {
        let place = |url: &str| settings(url, &[]).place().map(|(bucket, prefix)| (bucket.to_owned(), prefix)).ok();
        let is = |bucket: &str, prefix: &str| Some((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(place("s3://b"), is("b", ""));
        assert_eq!(place("s3://b/"), is("b", ""));
        assert_eq!(place("s3://b/p/q/"), is("b", "p/q/"));
        for bad in ["", "b", "s3://", "s3:///p", "http://b", "s3://b//p", "s3://b/.probe", "s3://b/../c", "s3://b/ü"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |settings: Settings| {
            let e = settings.client().map(drop).unwrap_err();
            assert_eq!(e.kind, Kind::Invalid);
            e.field.unwrap_or_default()
        };
        assert_eq!(refused(settings("s3://b", &[("colour", "red")])), "store.options.colour");
        assert_eq!(refused(settings("s3://b", &[("conditional_put", "disabled")])), "store.options.conditional_put");
        assert_eq!(refused(settings("s3://b", &[("timeout", "soon")])), "store.options");
        let plain = Settings { endpoint: Some("http://127.0.0.1:1".into()), ..settings("s3://b", &[]) };
        assert_eq!(refused(plain.clone()), "store.allow_http");
        assert!(Settings { allow_http: true, ..plain }.client().is_ok());
        let stray = config::Store { region: Some("r".into()), ..config::Store::default() };
        assert_eq!(Settings::of(&stray).unwrap_err().field.as_deref(), Some("store.region"));
        assert!(Settings::of(&config::Store::default()).unwrap().is_none());
    }
}
