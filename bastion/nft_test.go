package bastion

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files anew")

func nftReport() Report {
	list := func(text ...string) (list []netip.Prefix) {
		for _, t := range text {
			list = append(list, netip.MustParsePrefix(t))
		}
		return list
	}
	return Report{Policy: 7, Allow: list("198.51.100.0/24", "198.51.100.7/32", "192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"),
		Proxies: list("203.0.113.9/32", "2001:db8:1::9/128")}
}

// TestNFT compares with what "nft -f" is known to take: testenv.TestNFTLoads.
func TestNFT(t *testing.T) {
	for _, test := range []struct{ golden, listen string }{{"any.nft", "[::]:22"}, {"four.nft", "10.77.0.2:2222"}} {
		got, err := NFT(nftReport(), netip.MustParseAddrPort(test.listen), NFTTable)
		if err != nil {
			t.Fatal(err)
		}
		file := "testdata/" + test.golden
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
	}
	// With an empty set of a family nobody of that family comes through.
	got, err := NFT(Report{Allow: nftReport().Allow[:1]}, netip.MustParseAddrPort("[::]:22"), "a")
	if err != nil || strings.Count(got, "elements") != 1 || !strings.Contains(got, "@allowed_v6 counter drop") {
		t.Errorf("one family: %v\n%s", err, got)
	}
	for _, table := range []string{"", "a b", "a;flush ruleset", "1a", strings.Repeat("a", 33)} {
		if _, err := NFT(nftReport(), netip.MustParseAddrPort("[::]:22"), table); err == nil {
			t.Errorf("table %q was taken", table)
		}
	}
}
