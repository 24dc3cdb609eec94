{{/* gateway.values are the values in force, with what follows from them. */}}
{{- define "gateway.values" -}}
{{- $v := include "ambit.values" (dict "root" . "section" "gateways") | fromYaml -}}
{{- $name := $v.name | default .Release.Name -}}
{{- if not (has $v.kind (list "Deployment" "DaemonSet")) -}}
{{- fail (printf "kind %q: a gateway is a Deployment or a DaemonSet" $v.kind) -}}
{{- end -}}
{{- $selector := $v.service.selectorLabels -}}
{{- if not $selector -}}
{{- $selector = dict "app" (index $v.labels "app" | default $name) "istio" (index $v.labels "istio" | default (trimPrefix "istio-" $name)) -}}
{{- end -}}
{{- $account := $v.serviceAccount.name | default (printf "%s-service-account" $name) -}}
{{- $suffix := ternary (printf "-%s" $v.revision) "" (and (ne $v.revision "") (ne $v.revision "default")) -}}
{{- $control := printf "istiod%s.%s.svc" $suffix $v.global.istioNamespace -}}
{{- merge (dict "x" (dict "name" $name "account" $account "selector" $selector "control" $control)) $v | toYaml -}}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "ambit.labels" (dict "root" . "name" "istio-gateway") }}
operator.istio.io/component: IngressGateways
{{- end -}}
