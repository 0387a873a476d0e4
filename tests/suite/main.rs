//! The integration tests, in one binary: it links once.

mod audit;
mod cli;
mod cli_trouble;
mod clients;
mod crash;
mod disk_full;
mod engine;
mod help;
mod http;
mod http_files;
mod http_queue;
mod http_site;
mod ledger;
mod log_contract;
mod log_embedded;
mod mismatch;
mod schemas;
mod server;
mod store_contract;
mod store_local;
