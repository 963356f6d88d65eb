//! Machine code of kernels, compiled by NVRTC for the GPU at hand. Unlike PTX, a driver loads it that is older than NVRTC.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::{self, result, sys};

use crate::runtime::provider::ProviderError;

/// Source of the kernel that selects the largest logits.
pub(super) const TOP: &str = include_str!("top.cu");
/// Source of the kernels that apply adapters.
pub(super) const BANK_ADD: &str = include_str!("bank_add.cu");

/// Checks that the compiler is there.
pub(in crate::runtime) fn available() -> Result<(), ProviderError> {
    // SAFETY: loading the compiler's library runs its initialisers.
    if unsafe { sys::is_culib_present() } { Ok(()) } else { Err(ProviderError::NoCompiler) }
}

/// Machine code of `source` for GPUs of that compute capability.
pub(super) fn compiled(source: &str, (major, minor): (i32, i32)) -> Result<Vec<u8>, ProviderError> {
    available()?;
    let failed = |error: String| ProviderError::Compile { error };
    let source = CString::new(source).map_err(|error| failed(error.to_string()))?;
    let program = Program(result::create_program(&source, None).map_err(|error| failed(format!("{error:?}")))?);
    let options = [format!("--gpu-architecture=sm_{major}{minor}")];
    // SAFETY: the program exists until the end.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) };
        let log = log.map(|log| log.into_iter().map(|c| c as u8 as char).filter(|c| *c != '\0').collect::<String>());
        return Err(failed(format!("{error:?}: {}", log.unwrap_or_default().trim())));
    }
    program.machine_code().map_err(|error| failed(format!("{error:?}")))
}

/// A program of NVRTC.
struct Program(sys::nvrtcProgram);

impl Program {
    fn machine_code(&self) -> Result<Vec<u8>, nvrtc::result::NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program is compiled; the out pointers are valid, the second for as many bytes as the first says.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &mut bytes).result()?;
            let mut code = vec![0_u8; bytes];
            sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()).result()?;
            Ok(code)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by create_program and destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs NVRTC on the library path (wheel nvidia-cuda-nvrtc), but no GPU: make cuda-kernels"]
    fn kernels_compile_for_every_generation_of_gpus() {
        for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
            for source in [TOP, BANK_ADD] {
                compiled(source, capability).unwrap_or_else(|error| panic!("{capability:?}: {error}"));
            }
        }
    }
}
