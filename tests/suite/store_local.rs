//! What the local store adds to the contract: crashes, a full disk, several processes, no runtime.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures::FutureExt;
use tuflog::error::Kind;
use tuflog::store::local::{LocalStore, free_bytes};
use tuflog::store::{Created, POINTER, Store};

use crate::help::{child_dir, child_on_small_disk, scratch};

fn open(dir: &Path) -> LocalStore {
    LocalStore::open(dir).unwrap()
}

/// Runs without a runtime: every future is done at its first poll.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("done at once")
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("metadata/{n}.bins-00.json")).collect()
}

#[test]
fn an_object_enters_its_place_only_when_its_bytes_are_durable() {
    for count in [1, 100] {
        let dir = scratch();
        let store = open(dir.path());
        for name in names(count) {
            assert_eq!(now(store.create(&name, "x".into())), Ok(Created::New));
            assert!(!dir.path().join(&name).exists());
        }
        now(store.sync(&names(count))).unwrap();
        assert!(names(count).iter().all(|name| dir.path().join(name).exists()));
        assert_eq!(fs::read_dir(dir.path().join(".new/metadata")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join(".tmp")).unwrap().count(), 0);
    }
}

#[test]
fn a_crash_takes_what_was_not_synced_and_nothing_else() {
    let dir = scratch();
    let store = open(dir.path());
    for name in names(3) {
        now(store.create(&name, "x".into())).unwrap();
    }
    now(store.sync(&names(2))).unwrap();
    now(store.swap_pointer(None, "p".into())).unwrap();
    fs::write(dir.path().join(".tmp/1-1"), "half an obj").unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(now(store.list("")), Ok(names(2)));
    assert_eq!(now(store.get(POINTER)), Ok(Some("p".into())));
    assert_eq!(fs::read_dir(dir.path().join(".tmp")).unwrap().count(), 0);
    assert_eq!(now(store.sync(&names(3))).unwrap_err().kind, Kind::Corrupt, "upload progress is not trusted");
    assert_eq!(now(store.create(&names(3)[2], "y".into())), Ok(Created::New));
}

#[test]
fn a_store_opened_to_read_has_what_is_durable_and_changes_nothing() {
    let dir = scratch();
    let kind = |path: &Path| LocalStore::open_read_only(path).map(drop).unwrap_err().kind;
    assert_eq!(kind(&dir.path().join("none")), Kind::Invalid);
    let store = open(dir.path());
    for name in names(3) {
        now(store.create(&name, "x".into())).unwrap();
    }
    now(store.sync(&names(2))).unwrap();
    now(store.swap_pointer(None, "p".into())).unwrap();
    drop(store);
    let store = LocalStore::open_read_only(dir.path()).unwrap();
    assert_eq!(now(store.list("")), Ok(names(2)));
    assert_eq!(now(store.get(POINTER)), Ok(Some("p".into())));
    assert_eq!(now(store.get(&names(3)[2])), Ok(None), "a crash of the machine could have torn it");
    assert!(dir.path().join(".new").join(&names(3)[2]).exists(), "but it is not for a reader to remove");
    assert_eq!(now(store.create("metadata/9.a.json", "x".into())).unwrap_err().kind, Kind::Invalid);
    assert_eq!(now(store.sync(&names(2))).unwrap_err().kind, Kind::Invalid);
    assert_eq!(now(store.swap_pointer(Some(&"p".into()), "q".into())).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn opening_takes_nothing_from_another_process_that_has_the_store_open() {
    let dir = scratch();
    let first = open(dir.path());
    now(first.create("metadata/1.a.json", "x".into())).unwrap();
    let second = open(dir.path());
    assert_eq!(now(second.get("metadata/1.a.json")), Ok(Some("x".into())));
    now(first.sync(&["metadata/1.a.json".into()])).unwrap();
    drop(first);
    drop(open(dir.path()));
    assert_eq!(now(second.create("metadata/1.a.json", "x".into())), Ok(Created::Same));
}

#[test]
fn what_lies_in_place_from_elsewhere_is_an_object_too() {
    let dir = scratch();
    let store = open(dir.path());
    fs::create_dir(dir.path().join("metadata")).unwrap();
    fs::write(dir.path().join("metadata/1.a.json"), "restored from a backup").unwrap();
    fs::write(dir.path().join("metadata/not an object~"), "").unwrap();
    now(store.sync(&["metadata/1.a.json".into()])).unwrap();
    assert_eq!(now(store.create("metadata/1.a.json", "x".into())), Ok(Created::Other("restored from a backup".into())));
    assert_eq!(now(store.list("")), Ok(vec!["metadata/1.a.json".to_owned()]));
}

#[test]
fn a_folder_that_cannot_be_a_store_is_refused() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(LocalStore::open(&file).err().expect("an error").kind, Kind::Invalid);
    assert!(free_bytes(dir.path()).unwrap() > 0);
    assert_eq!(free_bytes(&dir.path().join("nowhere")).unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn a_full_disk_is_unavailable_until_there_is_room() {
    child_on_small_disk("store_local::child_on_a_full_disk", 8);
}

#[test]
fn child_on_a_full_disk() {
    let Some(dir) = child_dir() else { return };
    let store = open(&dir.join("store"));
    let ballast = dir.join("ballast");
    now(store.swap_pointer(None, "1".into())).unwrap();
    now(store.create("metadata/1.a.json", "x".into())).unwrap();
    let mut block = 4 << 20;
    while block > 0 {
        let filler = fs::read(&ballast).unwrap_or_default().len() + block;
        if fs::write(&ballast, vec![0; filler]).is_err() {
            block /= 2; // the file keeps what fitted
        }
    }
    let large = Bytes::from(vec![1; 100_000]);
    let error = now(store.create("metadata/2.a.json", large.clone())).unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.message.contains("full"), "{error}");
    let error = now(store.swap_pointer(Some(&"1".into()), large.clone())).unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.message.contains("full"), "{error}");
    assert_eq!(now(store.get(POINTER)), Ok(Some("1".into())));
    assert_eq!(now(store.list("")), Ok(vec!["metadata/1.a.json".to_owned()]));
    now(store.sync(&["metadata/1.a.json".into()])).unwrap();
    assert_eq!(fs::read_dir(dir.join("store/.tmp")).unwrap().count(), 0);

    fs::remove_file(&ballast).unwrap();
    assert_eq!(now(store.create("metadata/2.a.json", large.clone())), Ok(Created::New));
    assert_eq!(now(store.swap_pointer(Some(&"1".into()), large)), Ok(true));
}
