//! The integration tests, in one binary: it links once.

mod engine;
mod help;
mod ledger;
mod log_contract;
mod log_embedded;
mod store_contract;
mod store_local;
