//! The contract of the store, clause by clause, run by every driver. A test's name is the clause it proves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use tempfile::TempDir;
use tuflog::error::Kind;
use tuflog::store::local::LocalStore;
use tuflog::store::{Created, POINTER, Store, metadata_name};

use crate::help::{PATIENCE, scratch};
use crate::s3::Bucket;

/// An empty store to test: two handles on it, as two nodes have.
struct Bed {
    store: Arc<dyn Store>,
    other: Arc<dyn Store>,
    _dir: Option<TempDir>,
}

fn local() -> Bed {
    let dir = scratch();
    let open = || Arc::new(LocalStore::open(dir.path()).unwrap());
    Bed { store: open(), other: open(), _dir: Some(dir) }
}

async fn s3() -> Bed {
    let bucket = Bucket::new();
    Bed { store: Arc::new(bucket.open().await), other: Arc::new(bucket.open().await), _dir: None }
}

fn bytes(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

async fn clause_1_an_object_is_created_once(bed: Bed) {
    let name = metadata_name(7, "bins-0a");
    assert_eq!(bed.store.get(&name).await, Ok(None));
    assert_eq!(bed.store.create(&name, bytes(1, 30_000)).await, Ok(Created::New));
    for synced in [false, true] {
        for store in [&bed.store, &bed.other] {
            assert_eq!(store.create(&name, bytes(1, 30_000)).await, Ok(Created::Same), "synced: {synced}");
            assert_eq!(store.create(&name, bytes(2, 30_000)).await, Ok(Created::Other(bytes(1, 30_000))));
            assert_eq!(store.create(&name, bytes(1, 29_999)).await, Ok(Created::Other(bytes(1, 30_000))));
            assert_eq!(store.get(&name).await, Ok(Some(bytes(1, 30_000))));
        }
        bed.store.sync(std::slice::from_ref(&name)).await.unwrap();
    }
    assert_eq!(bed.store.create("deep/er/empty", Bytes::new()).await, Ok(Created::New));
    assert_eq!(bed.store.get("deep/er/empty").await, Ok(Some(Bytes::new())));
    assert_eq!(bed.store.get("deep/er").await.ok().flatten(), None);
}

async fn clause_1_of_rival_creates_exactly_one_is_new_and_all_learn_its_bytes(bed: Bed) {
    for round in 0..50u64 {
        let name = metadata_name(round, "snapshot");
        let rivals = join_all((0..8u8).map(|i| {
            let store = if i % 2 == 0 { bed.store.clone() } else { bed.other.clone() };
            let name = name.clone();
            tokio::spawn(async move {
                let created = store.create(&name, bytes(i, 5_000)).await.unwrap();
                if i == 3 {
                    store.sync(&[name]).await.unwrap(); // while the others are at it
                }
                created
            })
        }));
        let outcomes: Vec<Created> = rivals.await.into_iter().map(Result::unwrap).collect();
        let winner = outcomes.iter().position(|created| *created == Created::New).expect("somebody was first");
        for (i, created) in outcomes.iter().enumerate() {
            match created {
                Created::New => assert_eq!(i, winner),
                other => assert_eq!(*other, Created::Other(bytes(winner as u8, 5_000))),
            }
        }
        assert_eq!(bed.store.get(&name).await, Ok(Some(bytes(winner as u8, 5_000))));
    }
}

async fn clause_1_whoever_is_slow_to_write_learns_what_was_created_and_synced_meanwhile(bed: Bed) {
    for round in 0..20u64 {
        let name = metadata_name(round, "targets");
        let (store, slow, large) = (bed.store.clone(), name.clone(), bytes(1, 8 << 20));
        let slow = tokio::spawn(async move { store.create(&slow, large).await.unwrap() });
        let fast = bed.other.create(&name, bytes(2, 10)).await.unwrap();
        bed.other.sync(std::slice::from_ref(&name)).await.unwrap();
        match (slow.await.unwrap(), fast) {
            (Created::Other(there), Created::New) => assert_eq!(there, bytes(2, 10)),
            (Created::New, Created::Other(there)) => assert_eq!(there.len(), 8 << 20),
            (slow, fast) => panic!("slow: new is {}, fast: new is {}", slow == Created::New, fast == Created::New),
        }
    }
}

async fn clause_1_nobody_sees_a_part_of_an_object(bed: Bed) {
    let (store, done) = (bed.other.clone(), Arc::new(AtomicBool::new(false)));
    let names: Vec<String> = (0..40).map(|n| metadata_name(n, "bins-00")).collect();
    let (watched, finished) = (names.clone(), done.clone());
    let watcher = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        loop {
            let last = finished.load(Ordering::SeqCst);
            for name in &watched {
                match store.get(name).await.unwrap() {
                    Some(found) => {
                        assert!(found == bytes(9, 1 << 20), "{} bytes of {name}", found.len());
                        seen.insert(name.clone());
                    }
                    None => assert!(!seen.contains(name), "{name} was there before"),
                }
            }
            if last {
                return seen.len();
            }
        }
    });
    for name in &names {
        bed.store.create(name, bytes(9, 1 << 20)).await.unwrap();
        bed.store.sync(std::slice::from_ref(name)).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert_eq!(watcher.await.unwrap(), names.len());
}

async fn clause_2_sync_takes_any_number_of_objects_whoever_made_them(bed: Bed) {
    for (round, count) in [0u64, 1, 2, 7, 40, 300].into_iter().enumerate() {
        let names: Vec<String> =
            (0..count).map(|n| format!("sync-{round}/{}/{n}.json", ["a", "b", "c"][n as usize % 3])).collect();
        for (n, name) in names.iter().enumerate() {
            let store = if n % 2 == 0 { &bed.store } else { &bed.other };
            assert_eq!(store.create(name, bytes(n as u8, 100)).await, Ok(Created::New));
        }
        let (one, other) = futures::join!(bed.store.sync(&names), bed.other.sync(&names));
        one.and(other).unwrap();
        bed.store.sync(&names).await.unwrap();
        for (n, name) in names.iter().enumerate() {
            assert_eq!(bed.other.get(name).await, Ok(Some(bytes(n as u8, 100))));
        }
    }
}

async fn clause_2_a_missing_object_cannot_be_synced(bed: Bed) {
    for count in [1, 100] {
        let mut names: Vec<String> = (0..count).map(|n| format!("missing/{count}-{n}")).collect();
        for name in &names {
            bed.store.create(name, bytes(1, 10)).await.unwrap();
        }
        names.push("missing/never-made".into());
        assert!(bed.store.sync(&names).await.is_err());
        names.pop();
        bed.store.sync(&names).await.unwrap();
    }
}

async fn clause_3_the_pointer_moves_only_from_what_it_is(bed: Bed) {
    let version = |n: u8| bytes(n, 400);
    assert_eq!(bed.store.get(POINTER).await, Ok(None));
    assert_eq!(bed.store.swap_pointer(Some(&version(0)), version(1)).await, Ok(false));
    assert_eq!(bed.store.swap_pointer(None, version(1)).await, Ok(true));
    assert_eq!(bed.other.swap_pointer(None, version(2)).await, Ok(false));
    assert_eq!(bed.other.swap_pointer(Some(&version(1)), version(2)).await, Ok(true));
    assert_eq!(bed.store.swap_pointer(Some(&version(1)), version(3)).await, Ok(false));
    assert_eq!(bed.store.swap_pointer(Some(&bytes(2, 399)), version(3)).await, Ok(false));
    assert_eq!(bed.store.get(POINTER).await, Ok(Some(version(2))));
}

async fn clause_3_of_rival_swaps_exactly_one_is_true_for_each_version(bed: Bed) {
    let rivals = join_all((0..6u64).map(|rival| {
        let store = if rival % 2 == 0 { bed.store.clone() } else { bed.other.clone() };
        tokio::spawn(async move {
            let mut won = Vec::new();
            loop {
                let old = store.get(POINTER).await.unwrap();
                let version: u64 = old.as_ref().map_or(0, |b| std::str::from_utf8(b).unwrap().parse().unwrap());
                if version == 40 {
                    return won;
                }
                if store.swap_pointer(old.as_ref(), (version + 1).to_string().into()).await.unwrap() {
                    won.push(version + 1);
                }
            }
        })
    }));
    let mut won: Vec<u64> = rivals.await.into_iter().flat_map(Result::unwrap).collect();
    won.sort();
    assert_eq!(won, (1..=40).collect::<Vec<u64>>());
}

async fn clause_4_what_is_created_is_listed_in_order_and_the_pointer_is_no_object(bed: Bed) {
    assert_eq!(bed.store.list("").await, Ok(vec![]));
    let names = ["ledger/10.state.json", "ledger/9.state.json", "metadata/10.a.json", "metadata/1.a.json", "metadatb"];
    for name in names {
        bed.store.create(name, bytes(1, 1)).await.unwrap();
    }
    bed.store.swap_pointer(None, bytes(1, 1)).await.unwrap();
    for synced in [&[][..], &[names[0].to_owned(), names[3].to_owned()], &names.map(str::to_owned)] {
        bed.store.sync(synced).await.unwrap();
        let list = async |prefix: &str| bed.other.list(prefix).await.unwrap();
        let mut sorted = names.to_vec();
        sorted.sort();
        assert_eq!(list("").await, sorted);
        assert_eq!(list("ledger/").await, ["ledger/10.state.json", "ledger/9.state.json"]);
        assert_eq!(list("metadata/1").await, ["metadata/1.a.json", "metadata/10.a.json"]);
        assert_eq!(list("metadat").await, ["metadata/1.a.json", "metadata/10.a.json", "metadatb"]);
        assert_eq!(list("metadata/10.a.json").await, ["metadata/10.a.json"]);
        assert_eq!(list("nothing/").await, [""; 0]);
    }
    assert_eq!(bed.store.create(POINTER, bytes(2, 1)).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(bed.store.get(POINTER).await, Ok(Some(bytes(1, 1))));
}

async fn clause_5_a_name_that_breaks_the_rule_is_invalid(bed: Bed) {
    for name in ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", ".tmp/a", "a b", "ä", "a\\b", "a\0", "a+b"] {
        assert_eq!(bed.store.create(name, bytes(1, 1)).await.unwrap_err().kind, Kind::Invalid, "{name:?}");
        assert_eq!(bed.store.get(name).await.unwrap_err().kind, Kind::Invalid, "{name:?}");
        assert_eq!(bed.store.sync(&[name.to_owned()]).await.unwrap_err().kind, Kind::Invalid, "{name:?}");
    }
    assert_eq!(bed.store.list("").await, Ok(vec![]));
}

/// Every clause, for one driver.
macro_rules! driver {
    ($driver:ident, $bed:expr) => {
        mod $driver {
            use super::*;
            clauses! { $bed;
                clause_1_an_object_is_created_once
                clause_1_of_rival_creates_exactly_one_is_new_and_all_learn_its_bytes
                clause_1_whoever_is_slow_to_write_learns_what_was_created_and_synced_meanwhile
                clause_1_nobody_sees_a_part_of_an_object
                clause_2_sync_takes_any_number_of_objects_whoever_made_them
                clause_2_a_missing_object_cannot_be_synced
                clause_3_the_pointer_moves_only_from_what_it_is
                clause_3_of_rival_swaps_exactly_one_is_true_for_each_version
                clause_4_what_is_created_is_listed_in_order_and_the_pointer_is_no_object
                clause_5_a_name_that_breaks_the_rule_is_invalid
            }
        }
    };
}

macro_rules! clauses {
    ($bed:expr; $($clause:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $clause() {
            tokio::time::timeout(PATIENCE, super::$clause($bed)).await.expect("it hangs");
        }
    )*};
}

driver!(local, local());
driver!(s3, s3().await);
