//! Loads every kernel program once with each of the settings that lead the verifier another way, and prints what the
//! verifier made of it, one line a program: `program NAME SETTINGS INSTRUCTIONS STACK`. The object is its argument.
//!
//! The `verifier` lane runs it on this kernel and on the oldest one that Sinew supports. It needs nothing but bpf(2),
//! so the other machine's file system holds little more than this program. The numbers are the verifier's own: aya
//! asks for its log only after a failure, so [`syscall`] stands before libc's function of that name and asks for it
//! with every program.
#![allow(clippy::print_stdout, reason = "the lines are what the lane reads")]
#![allow(unsafe_code, reason = "the verifier's log is asked for where aya calls bpf(2)")]

use std::ffi::{c_long, c_void};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::programs::Program;
use sinew_bpf::settings::{PendingPlaces, Settings};

fn main() -> ExitCode {
    match load_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load_all() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: sinew-load OBJECT")?;
    let object = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let plain = Settings { pending: PendingPlaces::SAMPLE, ..Settings::DUAL_STACK };
    // Everything that a setting can switch on: the verifier then has the most to walk through.
    let full = Settings { overlay_ifindex: 1, reject: 1, ..plain };
    for (name, settings) in [("plain", plain), ("full", full)] {
        load(&object, name, &settings).with_context(|| format!("with settings `{name}`"))?;
    }
    Ok(())
}

fn load(object: &[u8], settings_name: &str, settings: &Settings) -> Result<()> {
    let bytes = bytes(settings);
    let mut loaded = EbpfLoader::new()
        .override_global("SETTINGS", bytes.as_slice(), true)
        .load(object)
        .context("cannot make the maps")?;
    let mut count = 0;
    for (name, program) in loaded.programs_mut() {
        *last_log() = String::new();
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::RawTracePoint(program) => program.load(),
            other => bail!("program {name} is a {:?}, which this tool does not load", other.prog_type()),
        };
        loaded.with_context(|| format!("the verifier refuses {name}"))?;
        let verdict = Verdict::read(&last_log()).with_context(|| format!("no numbers for {name}"))?;
        println!("program {name} {settings_name} {} {}", verdict.instructions, verdict.stack);
        count += 1;
    }
    if count == 0 {
        bail!("the object has no programs");
    }
    Ok(())
}

/// The settings as they lie in the programs' constants.
fn bytes(settings: &Settings) -> Vec<u8> {
    let start = std::ptr::from_ref(settings).cast::<u8>();
    // SAFETY: `Settings` is `repr(C)` without padding (its size is asserted to be that of its fields), so all of its
    // bytes are initialised; they are copied before the reference ends.
    unsafe { std::slice::from_raw_parts(start, size_of::<Settings>()) }.to_vec()
}

/// What the verifier says at the end of a load.
struct Verdict {
    instructions: u64,
    /// Bytes, `program+function+…`.
    stack: String,
}

impl Verdict {
    /// Reads `stack depth 320+64` and `processed 15484 insns (limit 1000000) …`.
    fn read(log: &str) -> Result<Self> {
        let after = |words: &str| log.lines().find_map(|line| line.strip_prefix(words));
        let stack = after("stack depth ").with_context(|| format!("no stack depth in the log: {log}"))?;
        let processed = after("processed ").with_context(|| format!("no count in the log: {log}"))?;
        let instructions = processed.split(' ').next().and_then(|number| number.parse().ok());
        Ok(Self {
            instructions: instructions.with_context(|| format!("no number in `{processed}`"))?,
            stack: stack.trim().to_owned(),
        })
    }
}

/// The log of the last program that was loaded.
static LAST_LOG: Mutex<String> = Mutex::new(String::new());

fn last_log() -> std::sync::MutexGuard<'static, String> {
    LAST_LOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD (linux/bpf.h).
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

const BPF_PROG_LOAD: c_long = 5;
/// Statistics only (BPF_LOG_STATS): a few lines instead of one for each instruction.
const LOG_STATISTICS: u32 = 4;

/// Found before libc's function of this name by everything in this process. It passes every call on; a program that
/// is loaded without a log gets one.
///
/// # Safety
/// As `syscall(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let real = real_syscall();
    if number != libc::SYS_bpf || a != BPF_PROG_LOAD || (c as usize) < size_of::<ProgramLoad>() {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { real(number, a, b, c, d, e, f) };
    }
    // SAFETY: for this command the second argument points at a `union bpf_attr` of the size in the third, which was
    // compared above, and the caller lends it for the call.
    let attributes = unsafe { &mut *(b as *mut ProgramLoad) };
    if attributes.log_size != 0 {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { real(number, a, b, c, d, e, f) };
    }
    let mut log = vec![0u8; 1 << 16];
    attributes.log_level = LOG_STATISTICS;
    attributes.log_size = 1 << 16;
    attributes.log_buffer = log.as_mut_ptr() as u64;
    // SAFETY: the caller's arguments; the log's buffer outlives the call.
    let answer = unsafe { real(number, a, b, c, d, e, f) };
    attributes.log_level = 0;
    attributes.log_size = 0;
    attributes.log_buffer = 0;
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    *last_log() = String::from_utf8_lossy(&log[..end]).into_owned();
    answer
}

type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

fn real_syscall() -> Syscall {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut found = REAL.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: a constant name; libc is loaded before `main` and never unloaded.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        REAL.store(found, Ordering::Relaxed);
    }
    assert!(!found.is_null(), "libc has a function named syscall");
    // SAFETY: libc's `syscall` takes the number and up to six words and returns a word; on the platforms that Sinew
    // runs on, words are passed to a variadic function as to any other.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) }
}
