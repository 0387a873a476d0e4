//! What the pieces of an import do without a server.

use super::*;

#[test]
fn a_salt_is_new_each_time_or_the_one_given() {
    assert_eq!(salt(None).unwrap(), None);
    assert_eq!(salt(Some("x".into())).unwrap(), Some("x".into()));
    assert_ne!(salt(Some(String::new())).unwrap(), salt(Some(String::new())).unwrap());
}

#[test]
fn what_can_be_gone_on_with_says_how() {
    let failure = Failure::new(Code::TryAgain, "interrupted");
    let Failure::Said { hint: Some(hint), .. } = resumable(failure, &Tally::default(), Some("7f".into())) else {
        panic!("a hint")
    };
    assert!(hint.contains("--again=7f"), "{hint}");
    let wrong = resumable(Failure::new(Code::Failed, "x"), &Tally::default(), None);
    assert!(matches!(wrong, Failure::Said { hint: None, .. }));
}
