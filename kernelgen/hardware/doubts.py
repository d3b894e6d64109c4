"""What of a profile is a guess: what a plan should say beside its numbers."""

from __future__ import annotations

from kernelgen.hardware.profile import Profile, section_of


def doubts(profile: Profile) -> list[str]:
    """Remarks for people; none where every number is the GPU's own."""
    found = []
    section = section_of(profile.arch)
    if profile.arch.rstrip("af") != section.rstrip("af"):
        found.append(
            f"nothing is known of {profile.arch}, the target of {profile.name}: the limits are those of {section}"
        )
    if profile.assumed:
        found.append(
            f"{len(profile.assumed)} of {len(profile.latencies)} latencies were not measured on {profile.name}, and "
            "others stand in (`tilesmith gpus show` says whose): the order of tilings is likely, their times are rough"
        )
    return found
