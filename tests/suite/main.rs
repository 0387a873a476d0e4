//! The integration tests, in one binary: it links once.

mod audit;
mod help;
mod log_contract;
mod log_embedded;
mod store_contract;
mod store_local;
