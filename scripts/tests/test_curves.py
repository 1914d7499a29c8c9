"""Tests of the drawing of learning curves."""

import pathlib
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "benchmarks"))

from curves import COLUMNS, HEIGHT, drawing  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def result(name, seed, steps):
    return {"name": name, "seed": seed, "steps": steps}


class Drawing(unittest.TestCase):
    def test_each_algorithm_has_one_chart_and_each_seed_one_line(self):
        names = ["one", "one", "a < b", *(f"further {index}" for index in range(COLUMNS))]
        results = [result(name, seed, [0.0, 0.25, 1.0]) for seed, name in enumerate(names)]
        root = xml.etree.ElementTree.fromstring(drawing(results))
        charts = root.findall(f"{SVG}g")
        self.assertEqual(len(charts), len(set(names)))
        self.assertEqual([len(chart.findall(f"{SVG}polyline")) for chart in charts[:2]], [2, 1])
        self.assertEqual(charts[1].find(f"{SVG}text").text, "a < b")
        self.assertEqual(root.get("viewBox").split()[3], str(2 * HEIGHT))

    def test_a_line_rises_as_exact_match_does(self):
        root = xml.etree.ElementTree.fromstring(drawing([result("one", 7, [0.0, 0.5, 1.0])]))
        points = root.find(f".//{SVG}polyline").get("points").split()
        heights = [float(point.split(",")[1]) for point in points]
        self.assertEqual(heights, sorted(heights, reverse=True))
        self.assertEqual(heights[0] - heights[1], heights[1] - heights[2])


if __name__ == "__main__":
    unittest.main()
