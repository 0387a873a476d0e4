//! The `tuflog` program: see [`tuflog::cli`].

/// For RocksDB and librdkafka, too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    tuflog::cli::run(std::env::args_os())
}
