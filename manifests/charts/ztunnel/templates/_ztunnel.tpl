{{/* ztunnel.values are the values in force. */}}
{{- define "ztunnel.values" -}}
{{- include "ambit.values" (dict "root" . "section" "ztunnel") -}}
{{- end -}}

{{- define "ztunnel.labels" -}}
app: ztunnel
{{ include "ambit.labels" (dict "root" . "name" "ztunnel") }}
operator.istio.io/component: Ztunnel
{{- end -}}
