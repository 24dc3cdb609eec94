package proxy_test

import (
	"net/netip"
	"testing"
)

// TestIPv6 tells the stories of IPv4 once more in a world whose pods and services have addresses of IPv6 only.
func TestIPv6(t *testing.T) { // BP-09
	for name, f := range map[string]func(*testing.T){
		"ServiceIsReachedThroughTheTunnel":      TestServiceIsReachedThroughTheTunnel,
		"SelfCallByService":                     TestSelfCallByService,
		"HalfCloseIsKept":                       TestHalfCloseIsKept,
		"PolicyRefusesWithoutAByte":             TestPolicyRefusesWithoutAByte,
		"PolicyNamedButNotReceivedDenies":       TestPolicyNamedButNotReceivedDenies,
		"PlaintextIsServedUntilStrict":          TestPlaintextIsServedUntilStrict,
		"PolicyChangeCutsOpenConnections":       TestPolicyChangeCutsOpenConnections,
		"TunnelReachesNothingButItsPod":         TestTunnelReachesNothingButItsPod,
		"CertificateIsThePodsWhateverTheSNI":    TestCertificateIsThePodsWhateverTheSNI,
		"ServerThatIsAnotherGetsNothing":        TestServerThatIsAnotherGetsNothing,
		"ProxyPortsForwardNothing":              TestProxyPortsForwardNothing,
		"UnknownDestinationIsPassedThrough":     TestUnknownDestinationIsPassedThrough,
		"UnknownWaypointIsNotGoneAround":        TestUnknownWaypointIsNotGoneAround,
		"DrainLetsConnectionsFinishThenCuts":    TestDrainLetsConnectionsFinishThenCuts,
		"RollingRestartLosesNoConnection":       TestRollingRestartLosesNoConnection,
		"ClientsKeepTheirPorts":                 TestClientsKeepTheirPorts,
		"RevokedPeersAreCutAndRefused":          TestRevokedPeersAreCutAndRefused,
		"WaypointOfWhatIsAddressedTakesIt":      TestWaypointOfWhatIsAddressedTakesIt,
		"ApplicationTunnelTellsWhoseAndWhereTo": TestApplicationTunnelTellsWhoseAndWhereTo,
		"NeighbourMustHaveTheAddress":           TestNeighbourMustHaveTheAddress,
		"HalfCloseIsKeptBetweenNeighbours":      TestHalfCloseIsKeptBetweenNeighbours,
		"NeighboursAreServedAsThroughTunnels":   TestNeighboursAreServedAsThroughTunnels,
	} {
		t.Run(name, f)
	}
}

// mapped is another way to write an address: an IPv4 one as IPv6.
func (w *world) mapped(a netip.AddrPort) string {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()).String()
}
