package main

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
)

// link6 answers each solicitation with these addresses, each from a server of its own, in this order.
type link6 struct {
	offers []string
	out    chan []byte
}

func (l *link6) WriteTo(p []byte, _ net.Addr) (int, error) {
	m, err := dhcpv6.MessageFromBytes(p)
	if err != nil {
		return 0, err
	}
	for i, offer := range l.offers {
		a, err := dhcpv6.NewAdvertiseFromSolicit(m, dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}}),
			dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(offer), PreferredLifetime: time.Hour, ValidLifetime: time.Hour}))
		if err != nil {
			return 0, err
		}
		l.out <- a.ToBytes()
	}
	return len(p), nil
}

func (l *link6) ReadFrom(p []byte) (int, net.Addr, error) {
	data, ok := <-l.out
	if !ok {
		return 0, nil, net.ErrClosed
	}
	return copy(p, data), &net.UDPAddr{}, nil
}

func (l *link6) Close() error                     { close(l.out); return nil }
func (*link6) LocalAddr() net.Addr                { return &net.UDPAddr{} }
func (*link6) SetDeadline(time.Time) error        { return nil }
func (*link6) SetReadDeadline(t time.Time) error  { return nil }
func (*link6) SetWriteDeadline(t time.Time) error { return nil }

// A server that answers first with another address than the ticket's does not stand in the way of the one that has it.
func TestSolicit(t *testing.T) {
	mac, want := net.HardwareAddr{2, 0, 0, 0, 1, 1}, netip.MustParseAddr("fd77::11")
	for _, tt := range []struct {
		name   string
		offers []string
		want   string // "": no answer
	}{
		{"alone", []string{"fd77::11"}, "fd77::11"},
		{"after a stranger's", []string{"fd77::99", "fd77::11"}, "fd77::11"},
		{"after two", []string{"fd77::99", "fd77::98", "fd77::11"}, "fd77::11"},
		{"a stranger's alone", []string{"fd77::99"}, "fd77::99"},
		{"nothing usable", []string{"ff02::1"}, ""},
		{"none", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, err := nclient6.NewWithConn(&link6{offers: tt.offers, out: make(chan []byte, 10)}, mac, nclient6.WithTimeout(time.Second), nclient6.WithRetry(1))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				m, err := solicit(t.Context(), client, mac, want)
				if tt.want == "" {
					if err == nil {
						t.Errorf("took %v", m)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := address6(m, want); got.String() != tt.want {
					t.Errorf("took %s, want %s", got, tt.want)
				}
			})
		})
	}
}
