//! What the beacon decides: who is audited, by whom, at which steps, and who proposes.

use r3mes_types::training::Member;
use r3mes_types::{Address, Hash, Hasher, Ppm};

use super::state::RoundId;

/// Numbers drawn from the beacon for one purpose. The same mix gives the same numbers everywhere.
pub(super) struct Draw {
    seed: Hash,
    drawn: u64,
}

impl Draw {
    /// Numbers for one purpose in one round; `subject` is the address concerned, or nothing.
    pub(super) fn new(mix: &Hash, id: RoundId, purpose: &str, subject: &[u8]) -> Self {
        let seed = Hasher::new("r3mes training draw v1")
            .part(mix.as_ref())
            .number(id.run)
            .number(u64::from(id.round))
            .part(purpose.as_bytes())
            .part(subject)
            .finish();
        Self { seed, drawn: 0 }
    }

    /// A number below `bound`; 0 if that is 0. Its bias is below `bound / 2^64`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let hash = Hasher::new("r3mes training draw number v1")
            .part(self.seed.as_ref())
            .number(self.drawn)
            .finish();
        self.drawn += 1;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_ref()[..8]);
        ((u128::from(u64::from_le_bytes(bytes)) * u128::from(bound)) >> 64) as u64
    }

    /// `count` different items in drawn order; all of them if there are fewer.
    pub(super) fn choose<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        let count = count.min(items.len());
        for place in 0..count {
            let rest = (items.len() - place) as u64;
            let chosen = place + self.below(rest) as usize;
            items.swap(place, chosen);
        }
        items.truncate(count);
        items
    }

    /// `count` different validators, each time in proportion to power, so that those who hold a share
    /// of the power hold that share of every seat, however many accounts they split it over.
    pub(super) fn choose_by_power(&mut self, members: &[Member], count: usize) -> Vec<Address> {
        let mut left = members.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let power: u64 = left.iter().map(|member| member.power).sum();
            if power == 0 {
                break;
            }
            let mut point = self.below(power);
            let place = left
                .iter()
                .position(|member| match point.checked_sub(member.power) {
                    Some(rest) => {
                        point = rest;
                        false
                    }
                    None => true,
                })
                .expect("the point is below the sum of all powers");
            chosen.push(left.remove(place).validator);
        }
        chosen
    }
}

/// Which audit of a package something is drawn for. Each has draws of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audits {
    /// The round's own.
    First,
    /// The one before stake is paid back.
    Second,
}

impl Audits {
    const fn purposes(self) -> [&'static str; 3] {
        match self {
            Self::First => ["audit", "panel", "steps"],
            Self::Second => ["second audit", "second panel", "second steps"],
        }
    }
}

/// Draws about one miner's package.
#[derive(Clone, Copy)]
pub(super) struct PackageDraw<'a> {
    /// The beacon's mix.
    pub(super) mix: &'a Hash,
    /// The round.
    pub(super) id: RoundId,
    /// Whose package.
    pub(super) miner: &'a Address,
    /// For which audit.
    pub(super) audits: Audits,
}

impl PackageDraw<'_> {
    fn of(&self, purpose: &str) -> Draw {
        Draw::new(self.mix, self.id, purpose, self.miner.as_ref())
    }

    /// Whether the package is audited.
    pub(super) fn is_audited(&self, share: Ppm) -> bool {
        let [audit, ..] = self.audits.purposes();
        let drawn = self.of(audit).below(u64::from(Ppm::ONE.millionths()));
        drawn < u64::from(share.millionths())
    }

    /// Up to `count` validators in drawn order, which the miner is never among.
    pub(super) fn order(&self, members: &[Member], count: usize) -> Vec<Address> {
        let [_, panel, _] = self.audits.purposes();
        let others: Vec<Member> = members
            .iter()
            .filter(|member| member.validator != *self.miner)
            .cloned()
            .collect();
        self.of(panel).choose_by_power(&others, count)
    }

    /// The panel of `m` members, which the miner is never among. Ascending by address.
    pub(super) fn panel(&self, members: &[Member], m: u32) -> Vec<Address> {
        let mut panel = self.order(members, m as usize);
        panel.sort();
        panel
    }

    /// The steps that are re-run: `drawn` of the `steps` optimizer steps, ascending, and the packaging,
    /// which counts as step `steps`.
    pub(super) fn steps(&self, steps: u32, drawn: u32) -> Vec<u32> {
        let [.., purpose] = self.audits.purposes();
        let all: Vec<u32> = (0..steps).collect();
        let mut chosen = self.of(purpose).choose(&all, drawn as usize);
        chosen.sort_unstable();
        chosen.push(steps);
        chosen
    }
}

/// The proposer and its backups, in order.
pub(super) fn proposers(
    mix: &Hash,
    id: RoundId,
    candidates: &[Address],
    count: u32,
) -> Vec<Address> {
    Draw::new(mix, id, "proposers", &[]).choose(candidates, count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RoundId = RoundId { run: 1, round: 2 };

    fn address(n: u8) -> Address {
        Address::from([n; 20])
    }

    fn package<'a>(mix: &'a Hash, miner: &'a Address) -> PackageDraw<'a> {
        PackageDraw {
            mix,
            id: ID,
            miner,
            audits: Audits::First,
        }
    }

    fn mixes() -> impl Iterator<Item = Hash> {
        (0..20_000u32).map(|n| Hash::of(&n.to_le_bytes()))
    }

    #[test]
    fn the_share_of_audited_miners_is_the_parameter() {
        let share = Ppm::percent(30);
        let audited = mixes()
            .filter(|mix| package(mix, &address(1)).is_audited(share))
            .count();
        // 20,000 draws of 0.3: one sigma is 65.
        assert!((5_800..6_200).contains(&audited), "{audited}");
        assert!(
            mixes()
                .take(100)
                .all(|mix| package(&mix, &address(1)).is_audited(Ppm::ONE))
        );
        assert!(
            !mixes()
                .take(100)
                .any(|mix| package(&mix, &address(1)).is_audited(Ppm::ZERO))
        );
    }

    #[test]
    fn seats_go_by_power_and_never_to_the_miner_itself() {
        let members: Vec<Member> = (1..=4)
            .map(|n| Member {
                validator: address(n),
                power: u64::from(n) * 10,
            })
            .collect();
        let mut seats = [0u32; 5];
        for mix in mixes() {
            let panel = package(&mix, &address(2)).panel(&members, 1);
            assert_eq!(panel.len(), 1);
            seats[usize::from(panel[0].as_ref()[0])] += 1;
        }
        assert_eq!(seats[2], 0);
        // Of 80: 10, 30 and 40. One sigma is at most 71.
        for (validator, expected) in [(1, 2_500), (3, 7_500), (4, 10_000)] {
            assert!(seats[validator].abs_diff(expected) < 300, "{seats:?}");
        }
        let all = package(&Hash::of(b"mix"), &address(9)).panel(&members, 16);
        assert_eq!(all, (1..=4).map(address).collect::<Vec<_>>());
    }

    #[test]
    fn every_step_is_drawn_equally_often_and_the_packaging_always() {
        let mut counts = [0u32; 9];
        for mix in mixes() {
            let drawn = package(&mix, &address(1)).steps(8, 2);
            assert_eq!(drawn.len(), 3);
            assert!(drawn.is_sorted() && drawn[0] != drawn[1]);
            drawn.iter().for_each(|&step| counts[step as usize] += 1);
        }
        assert_eq!(counts[8], 20_000);
        // 20,000 draws of 1/4: one sigma is 61.
        assert!(
            counts[..8].iter().all(|count| count.abs_diff(5_000) < 250),
            "{counts:?}"
        );
    }

    #[test]
    fn the_second_audit_has_draws_of_its_own() {
        let share = Ppm::percent(50);
        let miner = address(1);
        let both = mixes().filter(|mix| {
            let first = package(mix, &miner);
            let second = PackageDraw {
                audits: Audits::Second,
                ..first
            };
            first.is_audited(share) && second.is_audited(share)
        });
        // 20,000 draws of 1/4 if they are independent: one sigma is 61.
        assert!(both.count().abs_diff(5_000) < 250);
    }

    #[test]
    fn the_draws_are_pinned() {
        let mix = Hash::of(b"mix");
        let numbers: Vec<u64> = {
            let mut draw = Draw::new(&mix, ID, "test", &[]);
            (0..4).map(|_| draw.below(1_000)).collect()
        };
        assert_eq!(numbers, [164, 873, 112, 619]);
    }
}
