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
{{- toYaml $v -}}
{{- end -}}

{{- define "cni.labels" -}}
k8s-app: istio-cni-node
{{ include "ambit.labels" (dict "root" . "name" "istio-cni") }}
operator.istio.io/component: Cni
{{- end -}}
