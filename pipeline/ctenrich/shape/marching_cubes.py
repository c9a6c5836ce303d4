"""The 256 cases of a 2x2x2 cube of voxels, the triangles of the surface through it, and the sums that follow from them.

The surface is the one that pyradiomics draws, because its numbers are the definition of MeshVolume and SurfaceArea.
The table was made by trying, for each case, every way to close the surface through the middles of the cube's edges and
every triangulation of it, and keeping the one whose area and signed volume equal pyradiomics' for four anisotropic
spacings; the tests compare all cases again. (Marching cubes: Lorensen and Cline, Computer Graphics 21, 1987.)

Corner n of a cube is at (k, j, i) = (n >> 2 & 1, n >> 1 & 1, n & 1), and bit n of a case states whether it is inside.
Edges are the pairs of corners that differ in one coordinate, in lexicographic order, with the letters a to l; a vertex
of the surface is the middle of an edge. Cases from 128 are the surface of the opposite case, turned inside out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["CubeTable", "cube_codes", "cube_table"]

TRIANGLES = (
    "",  # 0
    "acb",  # 1
    "ade",  # 2
    "bdc cde",  # 3
    "bgf",  # 4
    "acf cgf",  # 5
    "ade bgf",  # 6
    "cge def egf",  # 7
    "dfh",  # 8
    "acb dfh",  # 9
    "afe efh",  # 10
    "bfc cfh che",  # 11
    "bgd dgh",  # 12
    "acd cgh chd",  # 13
    "abe bge egh",  # 14
    "cge egh",  # 15
    "cij",  # 16
    "aib bij",  # 17
    "ade cij",  # 18
    "bdj dei dij",  # 19
    "bgf cij",  # 20
    "aif fig gij",  # 21
    "ade bgf cij",  # 22
    "def egf eig gij",  # 23
    "cij dfh",  # 24
    "aib bij dfh",  # 25
    "afe cij efh",  # 26
    "bfh bhi bij eih",  # 27
    "bgd cij dgh",  # 28
    "ahd aij ajh ghj",  # 29
    "abe bge cij egh",  # 30
    "egh eig gij",  # 31
    "eki",  # 32
    "acb eki",  # 33
    "adi dki",  # 34
    "bdk bic bki",  # 35
    "bgf eki",  # 36
    "acf cgf eki",  # 37
    "adi bgf dki",  # 38
    "cfi cgf dkf fki",  # 39
    "dfh eki",  # 40
    "acb dfh eki",  # 41
    "afi fhi hki",  # 42
    "bfc cfh chi hki",  # 43
    "bgd dgh eki",  # 44
    "acd cgh chd eki",  # 45
    "abg agk aki ghk",  # 46
    "cgh chi hki",  # 47
    "cej ekj",  # 48
    "aeb bek bkj",  # 49
    "adc cdj dkj",  # 50
    "bdj dkj",  # 51
    "bgf cej ekj",  # 52
    "aef egf ejg ekj",  # 53
    "adc bgf cdj dkj",  # 54
    "dgf djg dkj",  # 55
    "cej dfh ekj",  # 56
    "aeb bek bkj dfh",  # 57
    "afc cfh chk ckj",  # 58
    "bfh bhk bkj",  # 59
    "bgd cej dgh ekj",  # 60
    "aek agh ahd ajg akj",  # 61
    "abg agh ahk ajc akj",  # 62
    "ghj hkj",  # 63
    "gjl",  # 64
    "acj agb ajl alg",  # 65
    "ade gjl",  # 66
    "bdl blg cjl cle del",  # 67
    "bjf fjl",  # 68
    "acj ajl alf",  # 69
    "abe bje def ejl elf",  # 70
    "cde cjd djl dlf",  # 71
    "dfg dgj djh hjl",  # 72
    "acd bfg chd cjh hjl",  # 73
    "afj aje ejh fgj hjl",  # 74
    "bfg che cjh hjl",  # 75
    "bjd djh hjl",  # 76
    "acd chd cjh hjl",  # 77
    "abe bjl ble elh",  # 78
    "che cjh hjl",  # 79
    "cig gil",  # 80
    "agb ail alg",  # 81
    "adc cdg dei dil dlg",  # 82
    "bde beg eil elg",  # 83
    "bcf cif fil",  # 84
    "aif fil",  # 85
    "abc def eif fil",  # 86
    "def eif fil",  # 87
    "cdg cid dfg dil dlh",  # 88
    "ahd ail alh bfg",  # 89
    "afc cfg eih hil",  # 90
    "bfg eih hil",  # 91
    "bcd chd cil clh",  # 92
    "ahd ail alh",  # 93
    "abc eih hil",  # 94
    "eih hil",  # 95
    "egi ekg gji gkl",  # 96
    "aeb beg cji ekg gkl",  # 97
    "adg agi dkg gji gkl",  # 98
    "bdk bkg cji gkl",  # 99
    "bef bje eji ekl elf",  # 100
    "aek akl alf cji",  # 101
    "abi bji dkf fkl",  # 102
    "cji dkf fkl",  # 103
    "dfe efg egi gji hkl",  # 104
    "aed bfg cji hkl",  # 105
    "afi fgi gji hkl",  # 106
    "bfg cji hkl",  # 107
    "bjd die dji hkl",  # 108
    "aed cji hkl",  # 109
    "abi bji hkl",  # 110
    "cji hkl",  # 111
    "ceg ekg gkl",  # 112
    "aeb beg ekg gkl",  # 113
    "adc cdl clg dkl",  # 114
    "bdk bkg gkl",  # 115
    "bce bek bkl blf",  # 116
    "aek akl alf",  # 117
    "abc dkf fkl",  # 118
    "dkf fkl",  # 119
    "ceg dfe efg hkl",  # 120
    "aed bfg hkl",  # 121
    "afc cfg hkl",  # 122
    "bfg hkl",  # 123
    "bcd ced hkl",  # 124
    "aed hkl",  # 125
    "abc hkl",  # 126
    "hkl",  # 127
)
"""Triangles of the cases 0 to 127, three edge letters each; their normals point out of the object."""


@dataclass(frozen=True)
class CubeTable:
    """Sums over the triangles of each of the 256 cases, in units that make every number whole.

    Lengths are in half voxels: with a cube's first corner at voxel p, the signed volume of its triangles, seen from
    the origin, is ``(2 * p . normals + volumes) / 48`` voxels.
    """

    volumes: NDArray[np.float64]
    """(256,): sum of a . (b x c) over the triangles, the cube's first corner being the origin."""
    normals: NDArray[np.float64]
    """(256, 3): sum of (b - a) x (c - a) over the triangles, axes [k, j, i]."""
    kinds: NDArray[np.float64]
    """(n, 3): the different triangles, as absolute values of (b - a) x (c - a)."""
    counts: NDArray[np.float64]
    """(256, n): how many triangles of each kind a case has."""

    def kind_areas(self, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
        """Area of each kind of triangle, mm2, for a spacing in mm, axes [k, j, i]."""
        k, j, i = spacing
        return np.asarray(np.sqrt(((self.kinds * (j * i, k * i, k * j)) ** 2).sum(axis=1)) / 8)


@cache
def cube_table() -> CubeTable:
    """The table, computed once per process."""
    corners = [(n >> 2 & 1, n >> 1 & 1, n & 1) for n in range(8)]
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b) in {1, 2, 4}]
    middles = np.array([np.add(corners[a], corners[b]) for a, b in pairs], np.int64)
    volumes, normals = np.zeros(256), np.zeros((256, 3))
    found: dict[tuple[int, int, int], int] = {}
    entries: list[tuple[int, int]] = []
    for case, text in enumerate(TRIANGLES):
        for triangle in text.split():
            a, b, c = (middles["abcdefghijkl".index(letter)] for letter in triangle)
            normal = np.cross(b - a, c - a)
            volume = float(a @ np.cross(b, c))
            volumes[case] += volume
            normals[case] += normal
            k, j, i = np.abs(normal).tolist()
            entries.append((case, found.setdefault((k, j, i), len(found))))
    volumes[128:], normals[128:] = -volumes[127::-1], -normals[127::-1]
    counts = np.zeros((256, len(found)))
    for case, kind in entries:
        counts[case, kind] += 1
        counts[255 - case, kind] += 1
    return CubeTable(volumes, normals, np.array(list(found), np.float64), counts)


def cube_codes(padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Case of every cube of a mask of zeros and ones, [k, j, i]; one less than the mask along every axis."""
    along_i = padded[:, :, :-1] | padded[:, :, 1:] << 1
    along_j = along_i[:, :-1] | along_i[:, 1:] << 2
    return (along_j[:-1] | along_j[1:] << 4).astype(np.uint8, copy=False)
