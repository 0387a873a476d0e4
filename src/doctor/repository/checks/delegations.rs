//! Delegations: checks of their form and of the names of roles; and how they are read, to be followed.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::clients::{Client, Clients};
use super::super::file::{Look, broken};
use super::super::found::{Effect, Fault};
use super::super::graph::{Budget, OVERHEAD};
use super::super::json::Json;
use super::super::keys::{Keys, Signers};
use super::super::walk::MOST_ROLES;
use super::edge::{Index, Leads};
use super::meta::many;
use super::root::{ROLES, read_keys, read_signers};

/// How many roles tough loads, one after the other, without making anybody wait.
const EAGER: usize = 256;

static SUCCINCT: Fault = Fault {
    name: "form-succinct",
    what: "targets are delegated to succinct hash bins (TAP 15)",
    why: "python-tuf, tuf-js and go-tuf read them; the others do not know `succinct_roles` and refuse targets.json",
    fix: "nothing, if the clients that you serve can; the others need a second targets.json that lists the same bins by \
          `path_hash_prefixes`",
    choice: true,
};

static HASHES: Fault = Fault {
    name: "form-hash-prefixes",
    what: "targets are delegated by `path_hash_prefixes`",
    why: "go-tuf up to 2.4.2 compares them with the base64url text of the digest and finds nothing; rust-tuf wants `paths`; \
          sigstore-java and aktualizr do not look into such roles",
    fix: "nothing, if the clients that you serve can; for go-tuf 2.4.2 list the base64url prefixes too, with `terminating` false",
    choice: true,
};

static PATHS: Fault = Fault {
    name: "form-paths",
    what: "targets are delegated by `paths`",
    why: "rust-tuf never returns what a delegated role lists, and sigstore-java knows no delegations",
    fix: "nothing, if the clients that you serve can; for these two list targets in targets.json itself",
    choice: true,
};

static TWO_FORMS: Fault = Fault {
    name: "form-twofold",
    what: "a delegation has two forms at once",
    why: "python-tuf and php-tuf refuse it; the others drop one form before they check the signature, and so find it wrong",
    fix: "write either `roles` or `succinct_roles`, and in a role either `paths` or `path_hash_prefixes`",
    choice: false,
};

static NO_FORM: Fault = Fault {
    name: "form-missing",
    what: "a delegation has no form",
    why: "clients do not know which targets it is for: most refuse the file, and none finds a target by it",
    fix: "write `roles` or `succinct_roles`, and in a role `paths` or `path_hash_prefixes`",
    choice: false,
};

/// The form of delegation.
pub fn form(look: &mut Look<'_>) {
    let Some(delegations) = look.get("delegations") else { return };
    if delegations.object().is_none() || delegations.get("keys").and_then(Json::object).is_none() {
        return look.misshapen("signed.delegations.keys", "missing, or not an object");
    }
    match (delegations.get("roles"), delegations.get("succinct_roles")) {
        (Some(_), Some(_)) => look.breaks(&TWO_FORMS, Clients::ALL, "signed.delegations", "roles and succinct_roles"),
        (None, None) => look.breaks(&NO_FORM, Clients::ALL, "signed.delegations", "neither roles nor succinct_roles"),
        (None, Some(role)) => {
            let can = Clients::GO | Clients::of(&[Client::PythonTuf, Client::TufJs]);
            let bits = role.get("bit_length").and_then(Json::count).unwrap_or(0);
            let is = format!("{bits} bits");
            look.breaks(&SUCCINCT, Clients::ALL - can, "signed.delegations.succinct_roles", &is);
        }
        (Some(roles), None) => {
            let Some(roles) = roles.array() else {
                return look.misshapen("signed.delegations.roles", "not an array");
            };
            for (i, role) in roles.iter().enumerate() {
                role_form(look, &format!("signed.delegations.roles[{i}]"), role);
            }
        }
    }
}

fn role_form(look: &mut Look<'_>, field: &str, role: &Json<'_>) {
    let Some(name) = role.get("name").and_then(Json::text) else {
        return look.misshapen(field, "`name` is missing, or no string");
    };
    if !matches!(role.get("terminating"), Some(Json::Bool(_))) {
        look.misshapen(&format!("{field}.terminating"), "missing, or neither true nor false");
    }
    match (role.get("paths"), role.get("path_hash_prefixes")) {
        (Some(_), Some(_)) => look.breaks(&TWO_FORMS, Clients::ALL, field, "paths and path_hash_prefixes"),
        (None, None) => {
            // tuf-js and go-tuf read such a role, and never visit it.
            let lenient = Clients::GO | Clients::of(&[Client::TufJs]);
            look.breaks(&NO_FORM, Clients::ALL - lenient, field, name);
            look.add(&NO_FORM, Effect::miss(lenient), field, name);
        }
        (Some(patterns), None) | (None, Some(patterns)) if texts(patterns).is_none() => {
            look.misshapen(field, "not an array of strings");
        }
        (Some(_), None) => {
            look.add(&PATHS, Effect::miss(Clients::of(&[Client::RustTuf, Client::SigstoreJava])), field, name);
        }
        (None, Some(prefixes)) => {
            let hex = |p: &String| p.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let both = !texts(prefixes).unwrap_or_default().iter().all(hex);
            let old = if both { Clients::NONE } else { Clients::of(&[Client::GoTuf242]) };
            let miss = old | Clients::of(&[Client::SigstoreJava, Client::Aktualizr]);
            look.add(&HASHES, Effect { refuse: Clients::of(&[Client::RustTuf]), ..Effect::miss(miss) }, field, name);
        }
    }
}

fn texts(array: &Json<'_>) -> Option<Vec<String>> {
    array.array()?.iter().map(|item| item.text().map(str::to_owned)).collect()
}

/// A delegation.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The role that it leads to.
    pub role: String,
    /// Whether a search that it fits ends with it.
    pub terminating: bool,
    /// Who signs the role.
    pub signers: Rc<Signers>,
}

/// What a file delegates, as far as it can be followed and the budget goes.
#[derive(Debug, Default)]
pub struct Delegated {
    /// Its keys.
    pub keys: Rc<Keys>,
    /// Its delegations.
    pub edges: Rc<[Edge]>,
    /// For which targets they are.
    pub index: Index,
    /// Whether there are more.
    pub left_out: bool,
}

impl Delegated {
    /// Reads the delegations of a file. Of more bins than are read, some are taken from all over the hash space.
    pub fn of(file: &Json<'_>, budget: &mut Budget) -> Delegated {
        let Some(delegations) = file.get("delegations") else { return Delegated::default() };
        let keys = read_keys(delegations.get("keys"));
        if !budget.take(keys.iter().map(|(id, key)| id.len() + key.size() + OVERHEAD).sum()) {
            return Delegated { left_out: true, ..Delegated::default() };
        }
        let bins = delegations.get("succinct_roles").and_then(|role| bins(role, budget));
        let (edges, bits, left_out) = bins.unwrap_or_else(|| {
            let roles = delegations.get("roles").and_then(Json::array).unwrap_or_default();
            let (edges, left_out) = listed(roles, budget);
            (edges, 0, left_out)
        });
        let (edges, leads): (Vec<Edge>, Vec<Leads>) = edges.into_iter().unzip();
        Delegated { keys: keys.into(), edges: edges.into(), index: Index::of(leads, bits), left_out }
    }
}

type Edges = Vec<(Edge, Leads)>;

fn listed(roles: &[Json<'_>], budget: &mut Budget) -> (Edges, bool) {
    let edge = |role: &Json<'_>| {
        let leads = match (role.get("paths").and_then(texts), role.get("path_hash_prefixes").and_then(texts)) {
            (Some(paths), None) => Leads::Paths(paths),
            (None, Some(prefixes)) => Leads::Hashes(prefixes),
            _ => return None,
        };
        let terminating = matches!(role.get("terminating"), Some(Json::Bool(true)));
        Some((
            Edge { role: role.get("name")?.text()?.to_owned(), terminating, signers: read_signers(role)?.into() },
            leads,
        ))
    };
    let mut edges = Vec::new();
    for (edge, leads) in roles.iter().filter_map(edge) {
        let texts = match &leads {
            Leads::Hashes(texts) | Leads::Paths(texts) => texts.iter().map(|t| 2 * t.len() + 2 * OVERHEAD).sum(),
            Leads::Bin(_) => 0,
        };
        let ids: usize = edge.signers.keyids.iter().map(|id| id.len() + OVERHEAD).sum();
        if budget.edges == 0 || !budget.take(2 * edge.role.len() + 4 * OVERHEAD + texts + ids) {
            return (edges, true);
        }
        budget.edges -= 1;
        edges.push((edge, leads));
    }
    (edges, false)
}

fn bins(role: &Json<'_>, budget: &mut Budget) -> Option<(Edges, u32, bool)> {
    let bits = role.get("bit_length")?.count().filter(|bits| (1..=32).contains(bits))? as u32;
    let prefix = role.get("name_prefix")?.text()?;
    let signers = Rc::new(read_signers(role)?);
    let all = 1_u64 << bits;
    let width = format!("{:x}", all - 1).len();
    let ids: usize = signers.keyids.iter().map(|id| id.len() + OVERHEAD).sum();
    budget.take(ids.min(budget.bytes));
    let each = 2 * (prefix.len() + width) + 4 * OVERHEAD;
    let most = budget.edges.min(MOST_ROLES).min(budget.bytes / each);
    let taken = all.min(most as u64);
    budget.take(taken as usize * each);
    budget.edges -= taken as usize;
    let edge = |i: u64| {
        let bin = (i as u128 * u128::from(all) / u128::from(taken)) as u64;
        let role = format!("{prefix}-{bin:0width$x}");
        (Edge { role, terminating: true, signers: signers.clone() }, Leads::Bin(bin))
    };
    Some(((0..taken).map(edge).collect(), bits, taken < all))
}

static BITS: Fault = Fault {
    name: "succinct-bits",
    what: "`bit_length` is not from 1 to 32",
    why: "TAP 15 allows no other, and python-tuf and tuf-js refuse it",
    fix: "choose a bit length from 1 to 32; at most 10 if tuf-js is to read the repository",
    choice: false,
};

/// The number of bits of succinct bins.
pub fn bits(look: &mut Look<'_>) {
    let Some(role) = look.get("delegations").and_then(|d| d.get("succinct_roles")) else { return };
    const FIELD: &str = "signed.delegations.succinct_roles";
    if role.get("name_prefix").and_then(Json::text).is_none() {
        look.misshapen(&format!("{FIELD}.name_prefix"), "missing, or no string");
    }
    match role.get("bit_length").and_then(Json::count) {
        Some(1..=32) => {}
        Some(bits) => look.breaks(&BITS, Clients::ALL, &format!("{FIELD}.bit_length"), &bits.to_string()),
        None => look.misshapen(&format!("{FIELD}.bit_length"), "missing, or no number"),
    }
}

/// The names of the roles that are delegated to one by one, and where they stand.
fn names_of<'l>(look: &Look<'l>) -> Vec<(String, &'l str)> {
    let roles = look.get("delegations").and_then(|d| d.get("roles")).and_then(Json::array).unwrap_or_default();
    let name = |(i, role): (usize, &'l Json<'l>)| {
        Some((format!("signed.delegations.roles[{i}].name"), role.get("name")?.text()?))
    };
    roles.iter().enumerate().filter_map(name).collect()
}

static NAME: Fault = Fault {
    name: "role-name",
    what: "a delegated role has the name of a top-level role, or none",
    why: "python-tuf refuses the file, tuf-js that with a top-level name, php-tuf that with none; clients that keep roles by \
          name may mistake one for the other",
    fix: "give every delegated role a name of its own",
    choice: false,
};

static REPEATED_NAME: Fault = Fault {
    name: "role-name-repeated",
    what: "a file delegates to one role twice",
    why: "python-tuf refuses the file; tuf-js keeps one of them before it checks the signature, and so finds it wrong",
    fix: "write one delegation with the paths or prefixes of both",
    choice: false,
};

static SLASH: Fault = Fault {
    name: "role-name-slash",
    what: "the name of a role has a `/`",
    why: "clients ask for `a%2Fb`; many servers decode that, and then there is no such file",
    fix: "use names of letters, digits, `-`, `_` and `.`, or see that the server does not decode %2F",
    choice: false,
};

/// The names of roles: each one's own, and good in a URL.
pub fn names(look: &mut Look<'_>) {
    let mut seen = BTreeSet::new();
    for (field, name) in names_of(look) {
        let mut refused = |fault, by: Clients| {
            let effect = Effect { struggle: Clients::ALL - by, ..broken(by, look.file.delegated) };
            look.add(fault, effect, &field, name);
        };
        if name.is_empty() {
            refused(&NAME, Clients::of(&[Client::PythonTuf, Client::PhpTuf]));
        } else if ROLES.contains(&name) {
            refused(&NAME, Clients::of(&[Client::PythonTuf, Client::TufJs]));
        }
        if !seen.insert(name) {
            refused(&REPEATED_NAME, Clients::of(&[Client::PythonTuf, Client::TufJs]));
        }
        if name.contains('/') {
            look.add(&SLASH, Effect::struggle(Clients::ALL), &field, name);
        }
    }
    let prefix = look.get("delegations").and_then(|d| d.get("succinct_roles")).and_then(|r| r.get("name_prefix"));
    if let Some(prefix) = prefix.and_then(Json::text).filter(|p| p.contains('/')) {
        look.add(&SLASH, Effect::struggle(Clients::ALL), "signed.delegations.succinct_roles.name_prefix", prefix);
    }
}

static INTEGER_NAME: Fault = Fault {
    name: "role-name-integer",
    what: "the names of roles are integers",
    why: "tuf-js keeps roles as members of an object, which JavaScript moves to the front in numeric order: the signature fails",
    fix: "put a letter into the names of roles",
    choice: false,
};

/// Names that JavaScript would sort.
pub fn integer_names(look: &mut Look<'_>) {
    let names = names_of(look);
    let integer = |name: &str| name.parse::<u32>().ok().filter(|n| *n < u32::MAX && n.to_string() == name);
    let mut sorted: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
    sorted.sort_by_key(|name| integer(name).map_or(u64::MAX, u64::from)); // stable: the others keep their order
    if let Some(((field, name), _)) = names.iter().zip(sorted).find(|((_, name), sorted)| name != sorted) {
        look.breaks(&INTEGER_NAME, Clients::of(&[Client::TufJs]), field, name);
    }
}

static UNKNOWN: Fault = Fault {
    name: "delegation-unknown-field",
    what: "a delegation has a field that is not of the specification",
    why: "tough drops it before it checks the signature, and so finds it wrong; php-tuf refuses it",
    fix: "put fields of your own at the top of `signed`, where every client keeps them",
    choice: false,
};

/// Fields of delegations that some clients do not keep.
pub fn unknown_field(look: &mut Look<'_>) {
    let clients = Clients::of(&[Client::Tough, Client::PhpTuf]);
    let Some(delegations) = look.get("delegations") else { return };
    let roles = delegations.get("roles").and_then(Json::array).unwrap_or_default();
    let field = |i: usize| format!("signed.delegations.roles[{i}]");
    let known = ["keys", "roles", "succinct_roles"];
    let of_role = ["name", "keyids", "threshold", "terminating", "paths", "path_hash_prefixes"];
    let objects = std::iter::once(("signed.delegations".to_owned(), delegations, &known[..]));
    for (field, object, known) in objects.chain(roles.iter().enumerate().map(|(i, r)| (field(i), r, &of_role[..]))) {
        for (key, _) in object.object().unwrap_or_default() {
            if !known.contains(&key.as_ref()) {
                look.breaks(&UNKNOWN, clients, &field, key);
            }
        }
    }
}

static MANY: Fault = Fault {
    name: "delegation-count",
    what: "a file delegates to many roles one by one",
    why: "tuf-js takes time that grows with their square: 2,048 take 11 s, 4,096 46 s, 8,192 277 s",
    fix: "use at most 1,024 delegated roles if tuf-js is to read the repository",
    choice: false,
};

static LOADED_AT_ONCE: Fault = Fault {
    name: "delegation-eager",
    what: "a client that loads every role has many to load",
    why: "tough downloads all delegated roles, one after the other, before the first target",
    fix: "use fewer bins if tough is to read the repository, or give it a view without them",
    choice: false,
};

/// How many roles are delegated to.
pub fn delegation_count(look: &mut Look<'_>) {
    let count = names_of(look).len();
    many(look, &MANY, "signed.delegations.roles", count);
    if count > EAGER {
        let tough = Clients::of(&[Client::Tough]);
        look.add(&LOADED_AT_ONCE, Effect::struggle(tough), "signed.delegations.roles", &count.to_string());
    }
}
