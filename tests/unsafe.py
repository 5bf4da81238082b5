"""Names that some system would write elsewhere than asked, or could not keep."""

UNSAFE = [
    "", ".", "./", "..", "../a.jpg", "a/../../b.jpg", "a/..", "..\\a.jpg", "a\\..\\..\\b.jpg", "/etc/a.jpg", "\\a.jpg",
    "\\\\server\\share\\a.jpg", "//server/a.jpg", "C:a.jpg", "C:\\a.jpg", "c:/a.jpg", "a.jpg:stream", "a\x00.jpg",
    "a\n.jpg", "a\x7f.jpg", "a\x85.jpg", "a\u202egpj.exe.jpg", "a\u200b.jpg", "\ufeffa.jpg", "a\u2028b.jpg",
    "a\ud800.jpg",
    "..／a.jpg", "．．/a.jpg", "․․/a.jpg", "‥/a.jpg", "．．＼a.jpg", "C：a.jpg", "a/℀.jpg", "a﹨b.jpg", "CON", "con.jpg",
    "a/NUL.txt", "com1.png", "COM¹.png", "ＬＰＴ9.txt", "aux .jpg", "a.jpg.", "a.jpg ", "dir /a.jpg", ".../a.jpg",
    "x" * 252 + ".jpg", "ü" * 126 + ".jpg", "/".join(["d"] * 16) + "/a.jpg",
]  # fmt: skip
