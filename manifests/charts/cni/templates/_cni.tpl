{{/* cni.values are the values in force. */}}
{{- define "cni.values" -}}
{{- $v := include "ambit.values" (dict "root" . "section" "cni") | fromYaml -}}
{{- if not $v.chained -}}
{{- fail "cni.chained=false: the plugin of ambit is always chained after the node's own; for a configuration of its own file set cni.istioOwnedCNIConfig=true" -}}
{{- end -}}
{{- if not $v.ambient.shareHostNetworkNamespace -}}
{{- fail "cni.ambient.shareHostNetworkNamespace=false: the node agent works in the network of its node; leave it true" -}}
{{- end -}}
{{- if not $v.ambient.enabled -}}
{{- fail "cni.ambient.enabled=false: the node agent of ambit has no other use; leave the cni chart out instead" -}}
{{- end -}}
{{- if not $v.ambient.ipv6 -}}
{{- fail "cni.ambient.ipv6=false: what a pod sends by IPv6 would pass around the mesh; leave it true" -}}
{{- end -}}
{{- if not $v.ambient.reconcileIptablesOnStartup -}}
{{- fail "cni.ambient.reconcileIptablesOnStartup=false: an agent that starts always sees to it that pods' rules are those of its version; leave it true" -}}
{{- end -}}
{{- if ne $v.provider "default" -}}
{{- fail (printf "cni.provider %q: the plugin is chained into the node's own configuration; leave provider out (on OpenShift: global.platform=openshift)" $v.provider) -}}
{{- end -}}
{{- toYaml $v -}}
{{- end -}}

{{- define "cni.labels" -}}
k8s-app: istio-cni-node
{{ include "ambit.labels" (dict "root" . "name" "istio-cni") }}
operator.istio.io/component: Cni
{{- end -}}
