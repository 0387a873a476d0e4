//! A metadata file taken apart, and the view of it that checks work with.

use super::clients::{Client, Clients};
use super::found::{Effect, Fault, Found};
use super::json::{self, At, Json, Unread};

/// A file: its `signed` part, what the signatures are over, and the signatures.
pub struct File<'a> {
    /// Its name, such as `3.snapshot.json`.
    pub name: &'a str,
    /// Whether a role other than the four of the root signs it.
    pub delegated: bool,
    /// How long it is.
    pub length: u64,
    /// The whole of it.
    pub json: Json<'a>,
    /// The canonical text of `signed`; `None` if it has none, because a number is not an integer.
    pub message: Option<Vec<u8>>,
    /// Key id and signature, in file order.
    pub signatures: Vec<(String, String)>,
}

static NOT_JSON: Fault = Fault {
    name: "not-json",
    what: "a metadata file is not JSON",
    why: "no client gets beyond it",
    fix: "publish the file anew; look whether the server answers with a page of its own instead",
    choice: false,
};

static BYTE_ORDER_MARK: Fault = Fault {
    name: "byte-order-mark",
    what: "a metadata file begins with a byte order mark",
    why: "no client's JSON parser takes one",
    fix: "write the file as UTF-8 without a mark",
    choice: false,
};

static NOT_READ: Fault = Fault {
    name: "not-read",
    what: "a file is too deep or too large to be looked at here",
    why: "what it holds was not checked",
    fix: "delegate to more roles, so that each is small",
    choice: false,
};

static SHAPE: Fault = Fault {
    name: "shape",
    what: "a field that every client needs is missing, or is of another type",
    why: "clients read metadata into types, and give up on the file",
    fix: "write the field as section 4 of the TUF specification has it",
    choice: false,
};

impl<'a> File<'a> {
    /// Takes a file apart. What makes that impossible is put down, and `None`.
    pub fn open(name: &'a str, delegated: bool, bytes: &'a [u8], found: &mut Found) -> Option<File<'a>> {
        let all = broken(Clients::ALL, delegated);
        let json = match json::parse(bytes) {
            Ok(json) => json,
            Err(Unread::Mark) => return give_up(found, &BYTE_ORDER_MARK, all, name, "EF BB BF"),
            Err(Unread::NotJson(e)) => return give_up(found, &NOT_JSON, all, name, &e),
            Err(Unread::TooMuch) => {
                let effect = Effect::struggle(Clients::ALL);
                return give_up(found, &NOT_READ, effect, name, "more than 64 levels, or more than 4 million values");
            }
        };
        let (Some(signed), Some(listed)) = (json.get("signed"), json.get("signatures").and_then(Json::array)) else {
            return give_up(found, &SHAPE, all, name, "not an object with `signatures` and `signed`");
        };
        let mut signatures = Vec::with_capacity(listed.len());
        for signature in listed {
            let text = |name| signature.get(name).and_then(Json::text).map(str::to_owned);
            let (Some(id), Some(sig)) = (text("keyid"), text("sig")) else {
                return give_up(found, &SHAPE, all, name, "a signature without `keyid` or `sig`");
            };
            signatures.push((id, sig));
        }
        let mut message = Vec::new();
        let message = signed.canonical(&mut message).then_some(message);
        Some(File { name, delegated, length: bytes.len() as u64, json, message, signatures })
    }

    /// The signed part.
    pub fn signed(&self) -> &Json<'a> {
        self.json.get("signed").unwrap_or(&Json::Null) // there is one: `open` saw it
    }
}

fn give_up<T>(found: &mut Found, fault: &'static Fault, effect: Effect, file: &str, is: &str) -> Option<T> {
    found.add(fault, effect, file, "", is);
    None
}

/// What it means for clients that they cannot read a file: tough loads every role before the first target, the others
/// miss only what a delegated role lists.
pub fn broken(clients: Clients, delegated: bool) -> Effect {
    let eager = Clients::of(&[Client::Tough]);
    match delegated {
        true => Effect { refuse: clients & eager, miss: clients - eager, struggle: Clients::NONE },
        false => Effect::refuse(clients),
    }
}

/// What a check sees, and where it puts down what it finds.
pub struct Look<'l> {
    /// The file.
    pub file: &'l File<'l>,
    /// Unix seconds.
    pub now: u64,
    /// What was found.
    pub found: &'l mut Found,
}

impl<'l> Look<'l> {
    /// A member of the signed part.
    pub fn get(&self, name: &str) -> Option<&'l Json<'l>> {
        self.file.signed().get(name)
    }

    /// Puts a fault of this file down.
    pub fn add(&mut self, fault: &'static Fault, effect: Effect, field: &str, is: &str) {
        self.found.add(fault, effect, self.file.name, field, is);
    }

    /// Puts a fault down for which these clients cannot read this file.
    pub fn breaks(&mut self, fault: &'static Fault, clients: Clients, field: &str, is: &str) {
        if !clients.is_empty() {
            self.add(fault, broken(clients, self.file.delegated), field, is);
        }
    }

    /// A field is not what every client expects.
    pub fn misshapen(&mut self, field: &str, is: &str) {
        self.breaks(&SHAPE, Clients::ALL, field, is);
    }

    /// Shows every value of the signed part to `see`.
    pub fn each(&mut self, mut see: impl FnMut(&mut Look<'l>, &At<'_>, &'l Json<'l>)) {
        let file = self.file;
        json::visit(file.signed(), &At::Key(&At::Top, "signed"), &mut |at, json| see(self, at, json));
    }
}
