//! Debian's libipsec-mb as a peer: its AES-GCM functions for one packet ("direct API"), found at run time.
//!
//! The shared library exports the function of each instruction set by name, so that neither its header nor
//! the version-dependent layout of its manager is needed.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};

use tandem_aead::Algorithm;

/// `aes_gcm_pre_128_*`: expands the key.
type Expand = unsafe extern "C" fn(*const c_void, *mut Schedule);
/// `aes_gcm_enc_128_*` and `aes_gcm_dec_128_*`: schedule, context, output, input, length, IV (12 octets), AAD
/// and its length, tag and its length.
type Crypt = unsafe extern "C" fn(
    *const Schedule,
    *mut Context,
    *mut u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    u64,
    *mut u8,
    u64,
);

/// `struct gcm_key_data`: 240 octets of round keys and up to 768 of hash keys in version 1.3, with room for a
/// larger one.
#[repr(C, align(64))]
struct Schedule([u8; 8192]);

/// `struct gcm_context_data`: 88 octets in version 1.3, with room for a larger one.
#[repr(C, align(64))]
struct Context([u8; 1024]);

/// The functions of one key length.
#[derive(Clone, Copy)]
struct Functions {
    expand: Expand,
    seal: Crypt,
    open: Crypt,
}

/// The library, loaded once and never unloaded.
#[derive(Clone, Copy)]
pub struct Library {
    aes128: Functions,
    aes256: Functions,
    /// Instruction set whose functions are used, as the library names it.
    pub instructions: &'static str,
}

/// An expanded key.
pub struct Key {
    schedule: Box<Schedule>,
    functions: Functions,
}

/// Where and under what names Debian's packages have it.
const SONAMES: &[&CStr] = &[c"libIPSec_MB.so.1", c"libIPSec_MB.so.2"];

impl Library {
    /// Loads the library and picks the functions of the best instruction set of this CPU, as its own
    /// `init_mb_mgr_auto` would. The error says what is absent.
    pub fn load() -> Result<Self, String> {
        let handle =
            SONAMES.iter().find_map(|soname| open_library(soname)).ok_or("libIPSec_MB is not installed")?;
        let instructions = instruction_set().ok_or("the CPU has neither AES-NI nor PCLMULQDQ")?;
        Ok(Self {
            aes128: functions(handle, 128, instructions)?,
            aes256: functions(handle, 256, instructions)?,
            instructions,
        })
    }

    /// Expands a key; its length must be that of the algorithm.
    pub fn key(&self, algorithm: Algorithm, bytes: &[u8]) -> Key {
        assert_eq!(bytes.len(), algorithm.key_len(), "key length");
        let functions = match algorithm {
            Algorithm::Aes128Gcm => self.aes128,
            Algorithm::Aes256Gcm => self.aes256,
        };
        let mut schedule = Box::new(Schedule([0; 8192]));
        // SAFETY: `expand` is the library's function for this key length; it reads that many octets of `bytes`
        // (asserted above) and writes one `struct gcm_key_data`, for which `Schedule` is aligned and large
        // enough.
        unsafe { (functions.expand)(bytes.as_ptr().cast(), &mut *schedule) };
        Key { schedule, functions }
    }
}

impl Key {
    /// Seals `text` in place and writes the tag.
    #[inline]
    pub fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8; 16]) {
        self.crypt(self.functions.seal, nonce, aad, text, tag);
    }

    /// Opens `text` in place; true where the tag is right.
    #[inline]
    #[must_use]
    pub fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8; 16]) -> bool {
        let mut computed = [0; 16];
        self.crypt(self.functions.open, nonce, aad, text, &mut computed);
        u128::from_ne_bytes(computed) == u128::from_ne_bytes(*tag)
    }

    #[inline]
    fn crypt(&self, function: Crypt, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8; 16]) {
        let mut context = std::mem::MaybeUninit::<Context>::uninit();
        // SAFETY: the schedule was made by the same library for this function's key length. The function reads
        // 12 octets of nonce, `aad.len()` of AAD and `text.len()` of input; it writes as many of output, which
        // may be the same memory ("in-place" is supported by the library), 16 of tag, and the context, which is
        // scratch memory that it initialises itself. All of them outlive the call, and the output, the tag and
        // the context are borrowed or owned exclusively.
        unsafe {
            function(
                &*self.schedule,
                context.as_mut_ptr(),
                text.as_mut_ptr(),
                text.as_ptr(),
                text.len() as u64,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len() as u64,
                tag.as_mut_ptr(),
                tag.len() as u64,
            );
        }
    }
}

/// Instruction sets in the library's order of preference and its conditions for each.
fn instruction_set() -> Option<&'static str> {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("bmi2");
    let wide = is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("gfni");
    let aes = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    match aes {
        true if avx512 && wide => Some("vaes_avx512"),
        true if is_x86_feature_detected!("avx2") => Some("avx_gen4"),
        true if is_x86_feature_detected!("avx") => Some("avx_gen2"),
        true if is_x86_feature_detected!("sse4.2") => Some("sse"),
        _ => None,
    }
}

fn open_library(soname: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string; the library's constructors, which run now, are those of a system library.
    let handle = unsafe { libc::dlopen(soname.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    (!handle.is_null()).then_some(handle)
}

fn functions(handle: *mut c_void, bits: u32, instructions: &str) -> Result<Functions, String> {
    let symbol = |operation: &str| {
        let name = format!("aes_gcm_{operation}_{bits}_{instructions}\0");
        let name = CStr::from_bytes_with_nul(name.as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: `handle` came from dlopen and is never closed; the name is a C string.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        match address.is_null() {
            true => Err(format!("libIPSec_MB does not export {}", name.to_string_lossy())),
            false => Ok(address),
        }
    };
    let (expand, seal, open) = (symbol("pre")?, symbol("enc")?, symbol("dec")?);
    // SAFETY: these are the addresses of the functions that the library's header declares with these names and
    // signatures (`aes_gcm_pre_t`, `aes_gcm_enc_dec_t`), unchanged since its first release; the library stays
    // loaded. Before anything is timed, their output is compared with that of another implementation.
    unsafe {
        Ok(Functions {
            expand: std::mem::transmute::<*mut c_void, Expand>(expand),
            seal: std::mem::transmute::<*mut c_void, Crypt>(seal),
            open: std::mem::transmute::<*mut c_void, Crypt>(open),
        })
    }
}
