//! The integration tests, in one binary: it links once.

mod audit;
mod clients;
mod crash;
mod disk_full;
mod engine;
mod help;
mod ledger;
mod log_contract;
mod log_embedded;
mod server;
mod store_contract;
mod store_local;
