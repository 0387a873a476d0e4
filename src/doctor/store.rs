//! The object store: reachable, and keeping the conditions that publishing rests on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::{Area, Finding, Node};
use crate::error::Kind;
use crate::store::local::LocalStore;
use crate::store::s3::{S3Store, Settings};
use crate::store::{self, Store};

const AREA: Area = Area::Store;

/// What could be opened.
#[derive(Default)]
pub struct Opened {
    /// To read only, unless it is a bucket.
    pub store: Option<Arc<dyn Store>>,
    /// True if there is none, and `serve` would make one.
    pub is_new: bool,
    /// The server's time a moment ago, in Unix seconds.
    pub opened_at: Option<u64>,
}

/// Opens it as `serve` would, as far as that changes nothing.
pub async fn check(node: &Node, found: &mut Vec<Finding>) -> Opened {
    let settings = &node.settings.store;
    if let Some(dir) = store::directory(settings) {
        return local(dir.to_owned(), found);
    }
    let settings = match Settings::of(settings) {
        Ok(Some(settings)) => settings,
        Ok(None) => return local(node.data.join("store"), found),
        Err(_) => {
            found.push(Finding::skipped(AREA, "reachable", "its settings are wrong: see above"));
            return Opened::default();
        }
    };
    match S3Store::open(&settings).await {
        Ok(store) => {
            let what = format!("{} answers, and keeps If-None-Match and If-Match", settings.url);
            found.push(Finding::ok(AREA, "conditions", what));
            Opened { opened_at: store.opened_at(), store: Some(Arc::new(store)), is_new: false }
        }
        Err(e) => {
            let lacks = e.field.as_deref() == Some("store.endpoint");
            let check = if lacks { "conditions" } else { "reachable" };
            let fix = match e.kind {
                Kind::Unavailable => {
                    "is the server there? See store.url, store.endpoint and the network between".into()
                }
                _ if lacks => "use a server that keeps both conditions, as Amazon S3 does".to_owned(),
                _ => format!("see {}", e.field.as_deref().unwrap_or("store.url")),
            };
            found.push(Finding::of(AREA, check, &e).why("nothing can be published").fix(fix));
            Opened::default()
        }
    }
}

fn local(dir: PathBuf, found: &mut Vec<Finding>) -> Opened {
    let shown = dir.display();
    let finding = match dir.is_dir() {
        true if access(&dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() => {
            Finding::error(AREA, "reachable", format!("this user may not write in {shown}"))
                .why("nothing can be published")
                .fix("chown it to the user that runs serve, or run doctor as that user")
        }
        true => Finding::ok(AREA, "reachable", format!("{shown} can be written")),
        false if parent_is_writable(&dir) => {
            found.push(Finding::ok(AREA, "reachable", format!("{shown} is not there yet: serve makes it")));
            return Opened { is_new: true, ..Opened::default() };
        }
        false => Finding::error(AREA, "reachable", format!("{shown} is not there, and cannot be made"))
            .why("nothing can be published")
            .fix("is its volume mounted?"),
    };
    found.push(finding);
    let store = LocalStore::open_read_only(&dir).ok().map(|store| Arc::new(store) as Arc<dyn Store>);
    Opened { store, ..Opened::default() }
}

/// Whether the nearest directory above that is there can be written.
fn parent_is_writable(dir: &Path) -> bool {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let above = absolute.ancestors().skip(1).find(|dir| dir.exists());
    above.is_some_and(|above| access(above, Access::WRITE_OK).is_ok())
}
