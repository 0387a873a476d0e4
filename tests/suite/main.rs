//! The integration tests, in one binary: it links once.

mod audit;
mod chaos;
mod cli;
mod clients;
mod crash;
mod disk_full;
mod engine;
mod help;
mod http;
mod http_files;
mod http_queue;
mod http_site;
mod kafka;
mod ledger;
mod log_contract;
mod log_embedded;
mod log_kafka;
mod mismatch;
mod node_s3;
mod s3;
mod schemas;
mod server;
mod store_contract;
mod store_local;
mod store_s3;
mod writers;
