//! The `tuflog` program: see [`tuflog::cli`].

fn main() -> std::process::ExitCode {
    tuflog::cli::run(std::env::args_os())
}
