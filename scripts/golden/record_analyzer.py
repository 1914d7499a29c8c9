#!/usr/bin/env python3
"""Records Anserini's English analyser: the rules by which Lucene finds words, and what becomes of every code point.

    scripts/golden/record_analyzer.py ANSERINI_JAR

Writes two files. `retriever-server/src/lexical/word_rules.txt` is the automaton of Lucene's `StandardTokenizer`: the
class of every code point, and the transitions between its states. `tests/golden/analyzer.json` has digests of the terms
that `DefaultEnglishAnalyzer` makes of every code point alone, doubled and in 32 surroundings, for all blocks of 256
code points in which Java knows a character, and the terms of random texts. The jar is that of pyserini 1.6.0
(anserini-1.7.1-fatjar.jar). Needs `javac`, and a `java` of version 21. Run it from the root of the checkout.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = r"""
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;

public class Record {
  static Analyzer analyzer;

  public static void main(String[] arguments) throws Exception {
    // Anserini's classes need a newer compiler than Lucene's, so they are named at run time only.
    Class<?> type = Class.forName("io.anserini.analysis.DefaultEnglishAnalyzer");
    analyzer = (Analyzer) type.getMethod("newDefaultInstance").invoke(null);
    rules(new PrintStream(arguments[0], "UTF-8"));
    try (PrintStream out = new PrintStream(arguments[1], "UTF-8")) {
      out.println("{\"blocks\": {");
      digests(out);
      out.println("},\n\"texts\": [");
      texts(out);
      out.println("]}");
    }
  }

  static Object table(Class<?> type, String name) throws Exception {
    Field field = type.getDeclaredField(name);
    field.setAccessible(true);
    return field.get(null);
  }

  static void rules(PrintStream out) throws Exception {
    Class<?> type = Class.forName("org.apache.lucene.analysis.standard.StandardTokenizerImpl");
    Method classOf = type.getDeclaredMethod("zzCMap", int.class);
    classOf.setAccessible(true);
    int[] rows = (int[]) table(type, "ZZ_ROWMAP"), next = (int[]) table(type, "ZZ_TRANS");
    int[] attributes = (int[]) table(type, "ZZ_ATTRIBUTE"), actions = (int[]) table(type, "ZZ_ACTION");
    out.println("# The automaton of StandardTokenizer in Apache Lucene 9.9.1 (Apache License 2.0), as JFlex made it from the");
    out.println("# word rules of Unicode 9.0 (UAX #29) and of emoji (UTS #51). Written by scripts/golden/record_analyzer.py.");
    out.println("# The first code point of each range, in hexadecimal, and the class of the range.");
    out.println("classes");
    StringBuilder line = new StringBuilder();
    int classes = 0, before = -1;
    for (int code = 0; code <= 0x10FFFF; code++) {
      int found = (int) classOf.invoke(null, code);
      classes = Math.max(classes, found + 1);
      if (found == before) continue;
      before = found;
      String range = Integer.toHexString(code) + ":" + found;
      if (line.length() + range.length() > 118) {
        out.println(line.toString().trim());
        line.setLength(0);
      }
      line.append(' ').append(range);
    }
    out.println(line.toString().trim());
    out.println("# A line for each state: `.` if the text so far is nothing, `-` if it is skipped, `w` if it is a word; then the");
    out.println("# state after a character of each class, `-` if there is none.");
    out.println("states");
    for (int state = 0; state < rows.length; state++) {
      StringBuilder row = new StringBuilder((attributes[state] & 1) == 0 ? "." : actions[state] == 1 ? "-" : "w");
      for (int c = 0; c < classes; c++) {
        int target = next[rows[state] + c];
        row.append(' ').append(target < 0 ? "-" : Integer.toString(target));
      }
      out.println(row);
    }
    out.close();
  }

  static List<String> terms(String text) throws Exception {
    List<String> terms = new ArrayList<>();
    try (TokenStream stream = analyzer.tokenStream("contents", text)) {
      CharTermAttribute term = stream.addAttribute(CharTermAttribute.class);
      stream.reset();
      while (stream.incrementToken()) terms.add(term.toString());
      stream.end();
    }
    return terms;
  }

  /** Every surrounding in one text: a blank always ends a word. */
  static final String[] SURROUNDINGS = {
    "@", "@@", "a@b", "1@2", "a@1", "1@a", "\u05d0@\u05d1", "\u05d0'@", "@'1", "\u05d0\"@", "@\"\u05d1", "\u30a2@\u30a4",
    "_@_", "\u0e01@\u0e02", "\u4e2d@\u6587", "\u3042@\u3044", "\ud55c@\uad6d", "\ud83d\ude00@", "\ud83d\ude00\u200d@",
    "@\u200d\ud83d\ude00", "@\ufe0f", "@\u20e3", "@\u0301", "\ud83c\uddf3@", "@\ud83c\udffd", "@s", "a@ing", "@@ed",
    "1.@", "a.@", "a:@", "1,@", "b'@", "@'s",
  };

  static void digests(PrintStream out) throws Exception {
    String all = String.join(" ", SURROUNDINGS);
    String comma = "";
    for (int block = 0; block < 0x110000; block += 256) {
      boolean isKnown = block == 0xE000 || block == 0x10FF00;
      for (int code = block; code < block + 256; code++) {
        int kind = Character.getType(code);
        isKnown |= kind != Character.UNASSIGNED && kind != Character.SURROGATE && kind != Character.PRIVATE_USE;
      }
      if (!isKnown) continue;
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      for (int code = block; code < block + 256; code++) {
        String text = all.replace("@", new String(Character.toChars(code)));
        digest.update((String.join("\n", terms(text)) + "\n\n").getBytes(StandardCharsets.UTF_8));
      }
      StringBuilder hex = new StringBuilder();
      byte[] bytes = digest.digest();
      for (int index = 0; index < 6; index++) hex.append(String.format("%02x", bytes[index]));
      out.print(comma + "\"" + Integer.toHexString(block) + "\":\"" + hex + "\"");
      comma = ",\n";
    }
    out.println();
  }

  static final String[] PIECES = {
    "a", "b", "S", "ing", "1", "23", ".", ",", "'", "\u2019", "\"", "_", ":", "\u00b7", "\u00b8", "-", " ", "  ", "\u05d0", "\u05d1",
    "\u05f3", "\u0661", "\u0301", "\u200d", "\ufe0f", "\u20e3", "#", "*", "\u30a2", "\u30a0", "\u30fc", "\u3042", "\u4e2d", "\u2f00",
    "\u3300", "\ud55c", "\u1100", "\u0e01", "\u0e31", "\u17d7", "\u1780", "\u02e5", "\u2122", "\u2764", "\u267f", "\u26f9", "\u2640",
    "\ud83d\ude00", "\ud83c\udffd", "\ud83d\udc69", "\ud83c\uddf3", "\ud83c\uddf4", "\ud83c\udff4", "\udb40\udc67", "\udb40\udc7f",
    "\ud801\udc00", "\ud83d\udc66", "\ud83d\udc8b", "\uff07", "\uff11", "\u0130", "\u03a3", "\u00df", "\u1e9e", "\u00ad", "\u200b",
  };

  static void texts(PrintStream out) throws Exception {
    Random random = new Random(1);
    String comma = "";
    for (int count = 0; count < 400; count++) {
      StringBuilder text = new StringBuilder();
      int length = 2 + random.nextInt(30);
      for (int index = 0; index < length; index++) text.append(PIECES[random.nextInt(PIECES.length)]);
      // A few words of more than 255 characters, in 16-bit units and otherwise.
      if (count % 40 == 0) text.append(("\ud801\udc00x").repeat(60 + random.nextInt(150)));
      if (count % 40 == 20) text.append(("ab.").repeat(80 + random.nextInt(150)));
      out.print(comma + "[" + quoted(text.toString()) + ",[");
      String inner = "";
      for (String term : terms(text.toString())) {
        out.print(inner + quoted(term));
        inner = ",";
      }
      out.print("]]");
      comma = ",\n";
    }
    out.println();
  }

  static String quoted(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char letter : text.toCharArray()) {
      if (letter == '"' || letter == '\\') quoted.append('\\').append(letter);
      else if (letter < 0x20 || letter > 0x7e) quoted.append(String.format("\\u%04x", (int) letter));
      else quoted.append(letter);
    }
    return quoted.append('"').toString();
  }
}
"""


def main():
    jar = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Record.java").write_text(SOURCE, encoding="utf-8")
        classes = f"{jar}:{folder}"
        subprocess.run(["javac", "--release", "17", "-encoding", "UTF-8", "-cp", classes, "-d", folder, f"{folder}/Record.java"], check=True)
        rules = "retriever-server/src/lexical/word_rules.txt"
        subprocess.run(["java", "-cp", classes, "Record", rules, "tests/golden/analyzer.json"], check=True)


main()
