//! The table as instructions of the kernel's classic filter machine.
//!
//! Our own generator, because the crates that make filters have one answer for what matches and one for what does not,
//! and this table has three; and because they do not look at the x32 bit.

use super::{
    Answer, ENOSYS,
    numbers::{Machine, X32_BIT},
    table::{Condition, Rule},
};

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

impl Instruction {
    pub(super) fn bytes(self) -> [u8; 8] {
        let [a, b] = self.code.to_ne_bytes();
        let [c, d, e, f] = self.operand.to_ne_bytes();
        [a, b, self.jump_true, self.jump_false, c, d, e, f]
    }
}

// linux/bpf_common.h and linux/seccomp.h.
pub(super) const LOAD: u16 = 0x20; // the word of the call's record at this offset
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_AT_LEAST: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;
pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
/// `struct seccomp_data`: number, instruction set, instruction pointer, six arguments.
pub(super) const NUMBER_AT: u32 = 0;
pub(super) const MACHINE_AT: u32 = 4;
pub(super) const ARGUMENTS_AT: u32 = 16;

pub(super) fn render(machine: Machine) -> Vec<Instruction> {
    let mut all = vec![
        step(LOAD, MACHINE_AT),
        branch(IF_EQUAL, machine.audit_number(), 1, 0),
        step(RETURN, KILL_PROCESS),
        step(LOAD, NUMBER_AT),
    ];
    if machine == Machine::X86_64 {
        all.extend([branch(IF_AT_LEAST, X32_BIT, 0, 1), step(RETURN, KILL_PROCESS)]);
    }
    all.extend(search(&runs(machine)));
    all
}

/// Neighbours with the same answer, by their first number.
fn runs(machine: Machine) -> Vec<(u32, Answer)> {
    let mut runs: Vec<(u32, Answer)> = Vec::new();
    for number in 0..=machine.last() + 1 {
        let answer = machine.answer(number);
        if runs.last().is_none_or(|(_, last)| *last != answer) {
            runs.push((number, answer));
        }
    }
    runs
}

/// A binary search for the number, which is loaded. The long jump reaches further than a branch could.
fn search(runs: &[(u32, Answer)]) -> Vec<Instruction> {
    match runs {
        [] => vec![step(RETURN, ERRNO | u32::from(ENOSYS))],
        [(_, answer)] => leaf(*answer),
        _ => {
            let (below, above) = runs.split_at(runs.len() / 2);
            let (first, below, above) = (above[0].0, search(below), search(above));
            let over = u32::try_from(below.len()).unwrap_or(u32::MAX);
            let head = [branch(IF_AT_LEAST, first, 0, 1), step(JUMP, over)];
            head.into_iter().chain(below).chain(above).collect()
        }
    }
}

fn leaf(answer: Answer) -> Vec<Instruction> {
    match answer {
        Answer::Allow => vec![step(RETURN, ALLOW)],
        Answer::Error(errno) => vec![step(RETURN, ERRNO | u32::from(errno))],
        Answer::AllowWhere(rules) => {
            let rules = rules.iter().flat_map(|rule| alternative(rule));
            rules.chain([step(RETURN, ERRNO | u32::from(super::EPERM))]).collect()
        }
    }
}

/// Allows where every condition holds, otherwise goes on behind itself.
fn alternative(rule: Rule) -> Vec<Instruction> {
    let halves: Vec<(u32, u32, u32)> = rule.iter().flat_map(|condition| halves(*condition)).collect();
    let mut left = halves.len() * 3 + 1; // three for each half, and the return
    let mut all = Vec::new();
    for (offset, mask, value) in halves {
        left -= 3;
        let past = u8::try_from(left).unwrap_or(u8::MAX);
        all.extend([step(LOAD, offset), step(AND, mask), branch(IF_EQUAL, value, 0, past)]);
    }
    all.push(step(RETURN, ALLOW));
    all
}

/// The machine has words of 32 bits: the low half of an argument lies first. A half that no bit of the mask is in is
/// not looked at.
fn halves(condition: Condition) -> impl Iterator<Item = (u32, u32, u32)> {
    let at = ARGUMENTS_AT + 8 * u32::from(condition.argument);
    let low = |word: u64| (word & 0xffff_ffff) as u32;
    let of =
        move |offset, shift: u32| (at + offset, low(condition.mask >> shift), low(condition.value >> shift));
    [of(0, 0), of(4, 32)].into_iter().filter(|(_, mask, _)| *mask != 0)
}

fn step(code: u16, operand: u32) -> Instruction {
    branch(code, operand, 0, 0)
}

fn branch(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}
