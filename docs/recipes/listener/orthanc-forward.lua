-- Orthanc sends each CT series and structure set to the listener once no image of the series has come for StableAge
-- seconds. Results that the listener sends back are SEG and SR: they are not sent again. The job of a series that
-- could not be sent is in /jobs; POST /jobs/{id}/resubmit repeats it.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' or tags['Modality'] == 'RTSTRUCT' then
    local request = { Resources = { seriesId }, Synchronous = false }
    RestApiPost('/modalities/ctenrich/store', DumpJson(request, true))
  end
end
