//! The operator `slm:LoraAdd(y, x, rows) -> y`: adds to each row of a projection what its adapter makes of its input.
//!
//! Adapters are not graph inputs. A node knows which group of the model it stands behind, finds the adapter of each
//! row in the [`AdapterTable`] by the slot number in `rows`, and computes only that. So loading, replacing and
//! unloading an adapter is a store to the table, between two steps or during one, and rows with different adapters of
//! different ranks share a step. The output is the memory of `y` itself; a step without adapters costs a look at
//! `rows`.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use std::{ops::Range, ptr, slice, sync::Arc};

use ort::{
    AsPointer,
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput},
    value::TensorElementType,
};
use slm_convert::{
    graph::{LORA_ADD, OPERATOR_DOMAIN},
    pack::{PackedAdapter, PackedGroup},
};

use crate::{
    adapters::AdapterTable,
    kernels::{Level, Rows, TILE, Tile, add_columns, hidden},
};

/// Below this many multiply-adds a second thread costs more than it helps.
const ALONE_MAX: usize = 20_000;

/// The operator domain that a graph with `LoraAdd` nodes needs.
pub(super) fn domain(table: Arc<AdapterTable>, threads: usize) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(OPERATOR_DOMAIN)?.add(LoraAdd { table, threads, level: Level::best() })
}

struct LoraAdd {
    table: Arc<AdapterTable>,
    threads: usize,
    level: Level,
}

impl Operator for LoraAdd {
    type Kernel<'attr> = LoraAddKernel;

    const INPLACES: &[(u32, u32)] = &[(0, 0)];

    fn name(&self) -> &str {
        LORA_ADD
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::required(TensorElementType::Int32),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let group: i64 = context.get("group").ok_or_else(|| ort::Error::new("LoraAdd needs the attribute `group`"))?;
        Ok(LoraAddKernel {
            table: self.table.clone(),
            group: group as usize,
            threads: self.threads,
            level: self.level,
            jobs: Vec::new(),
            hidden: Vec::new(),
        })
    }

    /// The output has the shape of `y`: only a known shape lets the planner reuse its memory.
    fn infer_shape(&self, context: &mut ort::operator::ShapeInferenceContext) -> ort::Result<()> {
        match context.inputs().first() {
            Some(y) => context.set_output(0, y),
            None => Ok(()),
        }
    }
}

struct LoraAddKernel {
    table: Arc<AdapterTable>,
    group: usize,
    threads: usize,
    level: Level,
    // Reused from step to step.
    jobs: Vec<Job>,
    hidden: Vec<f32>,
}

/// A tile of tokens and the adapter they share.
struct Job {
    adapter: Arc<PackedAdapter>,
    tile: Tile,
}

impl Kernel for LoraAddKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let y = Tensor::<f32>::input(context, 0)?;
        let x = Tensor::<f32>::input(context, 1)?;
        let rows = Tensor::<i32>::input(context, 2)?;
        let out = Tensor::<f32>::output(context, 0, &y.shape)?;
        if out.data != y.data {
            // SAFETY: both tensors have `y.len()` floats and the runtime gave two buffers.
            unsafe { ptr::copy_nonoverlapping(y.data, out.data, y.len()) };
        }
        // SAFETY: `rows` is an input of this call and is not written to.
        let rows = unsafe { slice::from_raw_parts(rows.data, rows.len()) };
        if rows.iter().all(|&slot| slot < 0) {
            return Ok(());
        }
        let tokens_per_row = y.shape[..y.shape.len() - 1].iter().product::<i64>() as usize / rows.len().max(1);
        self.plan(rows, tokens_per_row);
        if self.jobs.is_empty() {
            return Ok(());
        }
        // SAFETY: `x` is an input of this call, `out` its output, which nobody else touches meanwhile.
        let (x, y) =
            unsafe { (slice::from_raw_parts(x.data, x.len()), slice::from_raw_parts_mut(out.data, out.len())) };
        self.apply(context, x, y)
    }
}

impl LoraAddKernel {
    /// Gathers tokens of one adapter into tiles.
    fn plan(&mut self, rows: &[i32], tokens_per_row: usize) {
        self.jobs.clear();
        for (index, &slot) in rows.iter().enumerate() {
            // A slot is looked at once, at its first row.
            if slot < 0 || rows[..index].contains(&slot) {
                continue;
            }
            let Some(adapter) = self.table.get(slot as usize) else { continue };
            if adapter.groups.get(self.group).is_none_or(Option::is_none) {
                continue;
            }
            let same = rows.iter().enumerate().skip(index).filter(|&(_, &other)| other == slot);
            let mut tokens = same.flat_map(|(row, _)| row * tokens_per_row..(row + 1) * tokens_per_row);
            loop {
                let mut tile = Tile { tokens: [0; TILE], len: 0 };
                for (place, token) in tile.tokens.iter_mut().zip(&mut tokens) {
                    *place = token as u32;
                    tile.len += 1;
                }
                if tile.len == 0 {
                    break;
                }
                self.jobs.push(Job { adapter: adapter.clone(), tile });
            }
        }
    }

    fn apply(&mut self, context: &ComputeContext, x: &[f32], y: &mut [f32]) -> ort::Result<()> {
        let (level, threads, index) = (self.level, self.threads, self.group);
        let tiles: Vec<(&PackedGroup, &Tile)> =
            self.jobs.iter().filter_map(|job| Some((job.adapter.groups.get(index)?.as_ref()?, &job.tile))).collect();
        let rank_max = tiles.iter().map(|(group, _)| group.rank).max().unwrap_or(0);
        let outputs = tiles.first().map_or(1, |(group, _)| group.outputs);
        let work: usize =
            tiles.iter().map(|(group, tile)| group.rank * tile.len * (group.inputs + group.outputs)).sum();

        self.hidden.resize(y.len() / outputs * rank_max, 0.0);
        let h = Rows::new(&mut self.hidden, rank_max);
        let y = Rows::new(y, outputs);
        let whole = |group: &PackedGroup, tile: &Tile| {
            // SAFETY: each token is in one tile and each tile is done by one thread; `level` was detected.
            unsafe {
                hidden(level, group, tile, 0..group.rank, x, h);
                add_columns(level, group, tile, 0..outputs, h, y);
            }
        };
        if work <= ALONE_MAX || threads == 1 {
            tiles.iter().for_each(|(group, tile)| whole(group, tile));
        } else if tiles.len() >= 2 * threads {
            context.par_for(tiles.len(), threads, |i| whole(tiles[i].0, tiles[i].1))?;
        } else {
            context.par_for(threads, threads, |part| {
                for (group, tile) in &tiles {
                    // SAFETY: shares of ranks do not overlap; `level` was detected.
                    unsafe { hidden(level, group, tile, share(group.rank, RANK_GRAIN, part, threads), x, h) };
                }
            })?;
            context.par_for(threads, threads, |part| {
                for (group, tile) in &tiles {
                    // SAFETY: shares of columns do not overlap; `level` was detected.
                    unsafe { add_columns(level, group, tile, share(outputs, COLUMN_GRAIN, part, threads), h, y) };
                }
            })?;
        }
        self.jobs.clear();
        Ok(())
    }
}

/// Ranks that the kernel takes at once.
const RANK_GRAIN: usize = 4;
/// Columns that the widest kernel takes at once.
const COLUMN_GRAIN: usize = 32;

/// Share `part` of `parts` of `0..total`, cut at multiples of `grain`.
fn share(total: usize, grain: usize, part: usize, parts: usize) -> Range<usize> {
    let cut = |part: usize| (total.div_ceil(grain) * part / parts * grain).min(total);
    cut(part)..cut(part + 1)
}

/// A tensor of the running node: where its data is and its shape.
struct Tensor<T> {
    data: *mut T,
    shape: Vec<i64>,
}

impl<T> Tensor<T> {
    fn len(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// Input `index`, whose element type the operator declared.
    fn input(context: &ComputeContext, index: usize) -> ort::Result<Self> {
        let api = ort::api();
        let mut value = ptr::null();
        let mut info = ptr::null_mut();
        let mut rank = 0;
        // SAFETY: the context is that of the running call; out pointers are valid; `info` is released before the end.
        unsafe {
            ort::Error::result_from_status((api.KernelContext_GetInput)(context.ptr(), index, &mut value))?;
            ort::Error::result_from_status((api.GetTensorTypeAndShape)(value, &mut info))?;
            let counted = ort::Error::result_from_status((api.GetDimensionsCount)(info, &mut rank));
            let mut shape = vec![0; rank];
            let read = ort::Error::result_from_status((api.GetDimensions)(info, shape.as_mut_ptr(), rank));
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            counted.and(read)?;
            Ok(Self { data: data_of(value.cast_mut())?, shape })
        }
    }

    /// Output `index`, made now with `shape`.
    fn output(context: &ComputeContext, index: usize, shape: &[i64]) -> ort::Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: the context is that of the running call; the runtime copies the shape.
        unsafe {
            let status = (ort::api().KernelContext_GetOutput)(
                context.ptr().cast_mut(),
                index,
                shape.as_ptr(),
                shape.len(),
                &mut value,
            );
            ort::Error::result_from_status(status)?;
            Ok(Self { data: data_of(value)?, shape: shape.to_vec() })
        }
    }
}

/// # Safety
/// `value` must be a live tensor.
unsafe fn data_of<T>(value: *mut ort_sys::OrtValue) -> ort::Result<*mut T> {
    let mut data = ptr::null_mut();
    // SAFETY: the caller's promise; the out pointer is valid.
    unsafe { ort::Error::result_from_status((ort::api().GetTensorMutableData)(value, &mut data))? };
    Ok(data.cast())
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_cover_everything_once() {
        for (total, grain, parts) in [(0, 4, 2), (3, 4, 2), (48, 4, 2), (50, 4, 3), (960, 32, 2), (961, 32, 7)] {
            let mut next = 0;
            for part in 0..parts {
                let range = share(total, grain, part, parts);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, total);
        }
    }
}
